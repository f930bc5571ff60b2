// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

//go:embed builtins.txt
var builtinNames string

// frameworkCall is what `data.framework.x` becomes: a question to the other side, with the input at that place.
const frameworkCall = "parma.framework"

var frameworkBuiltin = &ast.Builtin{
	Name:             frameworkCall,
	Decl:             types.NewFunction(types.Args(types.S, types.A), types.A),
	Nondeterministic: true,
}

// Functions that would reach out of this process. With -reference they exist and always fail, as where there is no
// network.
var reachOut = []string{"http.send", "net.lookup_ip_addr"}

type engine struct {
	other        *link
	capabilities *ast.Capabilities
	reference    bool
	policies     map[string]*policy
	broken       error // the other side cannot be talked to any more
}

type policy struct {
	compiler *ast.Compiler
	store    storage.Store
	queries  map[string]ast.Body
}

func newEngine(other *link, reference bool) *engine {
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.AllowNet = []string{}
	if !reference {
		capabilities.Builtins = only(capabilities.Builtins, names(builtinNames))
	}
	return &engine{other, capabilities, reference, map[string]*policy{}, nil}
}

func names(text string) map[string]bool {
	found := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			found[line] = true
		}
	}
	return found
}

func only(builtins []*ast.Builtin, wanted map[string]bool) (kept []*ast.Builtin) {
	for _, builtin := range builtins {
		if wanted[builtin.Name] {
			kept = append(kept, builtin)
			delete(wanted, builtin.Name)
		}
	}
	if len(wanted) > 0 {
		panic(fmt.Sprintf("builtins.txt names functions that do not exist: %v", wanted))
	}
	return kept
}

type loadRequest struct {
	ID string `json:"id"`
	// Texts by package: "policy", and fragments that the policy keeps as modules.
	Modules map[string]string `json:"modules"`
	// What `data.framework` has: names of the questions that the other side answers.
	Framework []string `json:"framework"`
	// Constants of the platform, below `data`.
	Constants map[string]any `json:"constants"`
	// The package whose definitions are wanted.
	Package string `json:"package"`
}

type loadAnswer struct {
	Definitions map[string]definition `json:"definitions"`
	Metadata    bool                  `json:"metadata"` // some rule reads `data.metadata`
}

// load compiles modules; they replace what was loaded under the same id.
func (e *engine) load(asked *loadRequest) (*loadAnswer, error) {
	modules := map[string]*ast.Module{"framework": framework(asked.Framework)}
	for name, text := range asked.Modules {
		options := ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: e.capabilities}
		module, err := ast.ParseModuleWithOpts(name+".rego", text, options)
		if err != nil {
			return nil, err
		}
		modules[name] = module
	}
	limits := &limits{framework: asked.Framework, fragments: asked.Modules, reference: e.reference}
	compiler := ast.NewCompiler().
		WithCapabilities(e.capabilities).
		WithBuiltins(map[string]*ast.Builtin{frameworkCall: frameworkBuiltin}).
		WithStageAfterID(ast.StageResolveRefs, ast.CompilerStageDefinition{
			Name: "CheckLimits", MetricName: "check_limits", Stage: limits.check,
		})
	if compiler.Compile(modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	data := map[string]any{}
	for name, value := range asked.Constants {
		data[name] = value
	}
	data["metadata"] = map[string]any{}
	e.policies[asked.ID] = &policy{compiler, inmem.NewFromObject(data), map[string]ast.Body{}}
	return &loadAnswer{limits.definitions(asked.Package), limits.readsMetadata}, nil
}

// framework is `data.framework`: a rule for each question.
func framework(questions []string) *ast.Module {
	sort.Strings(questions)
	text := "package framework\n"
	for _, name := range questions {
		text += fmt.Sprintf("%s := %s(%q, input)\n", name, frameworkCall, name)
	}
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.Builtins = append(capabilities.Builtins, frameworkBuiltin)
	return ast.MustParseModuleWithOpts(text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities})
}

type queryRequest struct {
	ID string `json:"id"`
	// A path below `data`: "policy.create_container".
	Path  string          `json:"path"`
	Input json.RawMessage `json:"input"`
	// What `data.metadata` is from now on, where it is given.
	Metadata map[string]any `json:"metadata"`
	// After how long to give up.
	Milliseconds int `json:"milliseconds"`
}

type queryAnswer struct {
	Defined bool `json:"defined"`
	Value   any  `json:"value"`
}

// query evaluates one definition.
func (e *engine) query(asked *queryRequest) (*queryAnswer, error) {
	loaded := e.policies[asked.ID]
	if loaded == nil {
		return nil, errors.New("no such policy is loaded")
	}
	body, err := loaded.prepare(asked.Path)
	if err != nil {
		return nil, err
	}
	input, err := ast.ValueFromReader(strings.NewReader(string(asked.Input)))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if asked.Metadata != nil {
		path := storage.MustParsePath("/metadata")
		if err := storage.WriteOne(ctx, loaded.store, storage.ReplaceOp, path, asked.Metadata); err != nil {
			return nil, err
		}
	}
	transaction, err := loaded.store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer loaded.store.Abort(ctx, transaction)
	cancel := topdown.NewCancel()
	timer := time.AfterFunc(time.Duration(asked.Milliseconds)*time.Millisecond, cancel.Cancel)
	defer timer.Stop()
	results, err := topdown.NewQuery(body).
		WithCompiler(loaded.compiler).
		WithStore(loaded.store).
		WithTransaction(transaction).
		WithInput(ast.NewTerm(input)).
		WithCancel(cancel).
		WithBuiltins(e.builtins()).
		Run(ctx)
	if err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return &queryAnswer{}, nil
	}
	value, err := ast.JSON(results[0][ast.Var("result")].Value)
	if err != nil {
		return nil, err
	}
	return &queryAnswer{true, value}, nil
}

// prepare compiles the question about a path, once.
func (p *policy) prepare(path string) (ast.Body, error) {
	if body, known := p.queries[path]; known {
		return body, nil
	}
	parsed, err := ast.ParseBodyWithOpts("result = data."+path, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, err
	}
	body, err := p.compiler.QueryCompiler().Compile(parsed)
	if err != nil {
		return nil, err
	}
	p.queries[path] = body
	return body, nil
}

func (e *engine) builtins() map[string]*topdown.Builtin {
	found := map[string]*topdown.Builtin{frameworkCall: {Decl: frameworkBuiltin, Func: e.ask}}
	if e.reference {
		for _, name := range reachOut {
			found[name] = &topdown.Builtin{Decl: ast.BuiltinMap[name], Func: unreachable}
		}
	}
	return found
}

func unreachable(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
	return errors.New("there is no network here")
}

type question struct {
	Ask   string `json:"ask"`
	Input any    `json:"input"`
}

type frameworkAnswer struct {
	Value   any    `json:"value"`
	Set     bool   `json:"set"`
	Refused string `json:"refused"`
}

// ask puts a question about the framework's own answer. Where there is none, the whole evaluation ends with an error:
// "undefined" would be true behind a `not`.
func (e *engine) ask(_ topdown.BuiltinContext, operands []*ast.Term, found func(*ast.Term) error) error {
	name, _ := operands[0].Value.(ast.String)
	input, err := ast.JSON(operands[1].Value)
	if err != nil {
		return topdown.Halt{Err: err}
	}
	var answer frameworkAnswer
	if err = e.other.send(question{string(name), input}); err == nil {
		err = e.other.receive(&answer)
	}
	if err != nil {
		e.broken = err
		return topdown.Halt{Err: err}
	}
	if answer.Refused != "" {
		return topdown.Halt{Err: errors.New(answer.Refused)}
	}
	value, err := ast.InterfaceToValue(answer.Value)
	if err != nil {
		return topdown.Halt{Err: err}
	}
	if elements, isArray := value.(*ast.Array); answer.Set && isArray {
		set := ast.NewSet()
		elements.Foreach(set.Add)
		value = set
	}
	return found(ast.NewTerm(value))
}
