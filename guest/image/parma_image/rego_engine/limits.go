// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// limits looks at what the modules refer to, right after the compiler has resolved imports and before it rewrites
// anything. A reference to something that other enforcers have and this one has not would be undefined here, and true
// behind a `not`: so it is an error.
type limits struct {
	framework []string
	fragments map[string]string
	reference bool

	rules         map[string][]*ast.Rule // by package and first name: "policy.create_container"
	described     map[string]definition
	readsMetadata bool
}

var constants = []string{
	"defaultMounts", "privilegedMounts", "sandboxPrefix", "hugePagesPrefix", "plan9Prefix",
	"defaultUnprivilegedCapabilities", "defaultPrivilegedCapabilities",
}

func (l *limits) check(compiler *ast.Compiler) *ast.Error {
	l.rules = map[string][]*ast.Rule{}
	var first *ast.Error
	for _, name := range slices.Sorted(maps.Keys(compiler.Modules)) {
		module := compiler.Modules[name]
		if name == "framework" {
			continue
		}
		for _, rule := range module.Rules {
			key := packageName(module) + "." + rule.Head.Ref()[0].Value.String()
			l.rules[key] = append(l.rules[key], rule)
			if err := l.checkRule(rule); err != nil && first == nil {
				first = err
			}
		}
	}
	if l.described = map[string]definition{}; first == nil {
		for key, rules := range l.rules {
			l.described[key] = l.describe(key, rules)
		}
	}
	return first
}

func (l *limits) checkRule(rule *ast.Rule) (first *ast.Error) {
	refuse := func(location *ast.Location, problem string) {
		if problem != "" && first == nil {
			first = ast.NewError(ast.CompileErr, location, "%s", problem)
		}
	}
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		if ref, isRef := term.Value.(ast.Ref); isRef {
			refuse(term.Location, l.problem(ref))
		}
		return false
	})
	ast.WalkWiths(rule, func(with *ast.With) bool {
		if target, isRef := with.Target.Value.(ast.Ref); isRef && target[0].Equal(ast.DefaultRootDocument) {
			refuse(with.Location, "'with' cannot replace "+target.String())
		}
		return false
	})
	return first
}

// packageName is "policy" for `package policy`.
func packageName(module *ast.Module) string {
	return module.Package.Path[1:].String()
}

// problem says why a reference is refused, or "".
func (l *limits) problem(ref ast.Ref) string {
	if ref[0].Value.String() == "parma" {
		return "there is no 'parma'"
	}
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return ""
	}
	if len(ref) == 1 {
		return "'data' as a whole cannot be used"
	}
	name, isString := ref[1].Value.(ast.String)
	switch {
	case !isString:
		// The name of a package that is being loaded is never one of ours.
		if l.reference || ref[1].Equal(ast.MustParseTerm("input.namespace")) {
			return ""
		}
		return "what is taken of 'data' must be named"
	case name == "metadata":
		l.readsMetadata = true
		return l.metadataProblem(ref)
	case name == "framework":
		return l.frameworkProblem(ref)
	case name == "policy" || slices.Contains(constants, string(name)) || l.fragments[string(name)] != "":
		return ""
	case name == "api":
		return "data.api is not offered"
	}
	// The package of a fragment that is not loaded, or not yet.
	return ""
}

func (l *limits) frameworkProblem(ref ast.Ref) string {
	if len(ref) == 2 {
		return "data.framework as a whole cannot be used"
	}
	if name, isString := ref[2].Value.(ast.String); isString && slices.Contains(l.framework, string(name)) {
		return ""
	}
	return "of data.framework there are only the enforcement points, reason, errors and error_objects; not " + ref.String()
}

// Fragments are kept in another shape here than in other enforcers.
var unreadable = []string{"issuers", "fragment_parameters"}

func (l *limits) metadataProblem(ref ast.Ref) string {
	if len(ref) == 2 {
		return "data.metadata as a whole cannot be used"
	}
	name, isString := ref[2].Value.(ast.String)
	switch {
	case isString && slices.Contains(unreadable, string(name)):
		return "data.metadata." + string(name) + " is not offered"
	case !isString && !l.reference:
		return "what is taken of data.metadata must be named"
	}
	return ""
}

type definition struct {
	// "framework": stands for what the framework says at the enforcement point `target`. "constant": depends on
	// nothing but the text. "function". "rule": anything else.
	Kind   string `json:"kind"`
	Target string `json:"target,omitempty"`
}

// definitions describes what one package defines.
func (l *limits) definitions(wanted string) map[string]definition {
	found := map[string]definition{}
	for key, description := range l.described {
		if name, ours := strings.CutPrefix(key, wanted+"."); ours {
			found[name] = description
		}
	}
	return found
}

func (l *limits) describe(key string, rules []*ast.Rule) definition {
	if target := forwarded(rules); target != "" {
		return definition{"framework", target}
	}
	for _, rule := range rules {
		if len(rule.Head.Args) > 0 {
			return definition{Kind: "function"}
		}
	}
	if l.constant(key, map[string]bool{}) {
		return definition{Kind: "constant"}
	}
	return definition{Kind: "rule"}
}

// forwarded is the x of `name := data.framework.x`, if that is all there is.
func forwarded(rules []*ast.Rule) string {
	rule := rules[0]
	plain := len(rules) == 1 && !rule.Default && rule.Else == nil && len(rule.Head.Ref()) == 1 &&
		len(rule.Head.Args) == 0 && rule.Head.Key == nil && rule.Head.Value != nil && rule.Body.Equal(ast.NewBody(ast.NewExpr(ast.BooleanTerm(true))))
	if !plain {
		return ""
	}
	ref, isRef := rule.Head.Value.Value.(ast.Ref)
	if !isRef || len(ref) != 3 || !ref.HasPrefix(ast.MustParseRef("data.framework")) {
		return ""
	}
	name, _ := ref[2].Value.(ast.String)
	return string(name)
}

// constant says whether a definition is the same at any time. Every reference out of the policy's own package, and the
// input, may change.
func (l *limits) constant(key string, seen map[string]bool) bool {
	if seen[key] {
		return true
	}
	seen[key] = true
	same := true
	for _, rule := range l.rules[key] {
		ast.WalkRefs(rule, func(ref ast.Ref) bool {
			same = same && l.constantRef(ref, seen)
			return false
		})
		ast.WalkTerms(rule, func(term *ast.Term) bool {
			if term.Value.Compare(ast.InputRootDocument.Value) == 0 {
				same = false
			}
			return false
		})
	}
	return same
}

func (l *limits) constantRef(ref ast.Ref, seen map[string]bool) bool {
	if builtin, known := ast.BuiltinMap[ref.String()]; known {
		return !builtin.Nondeterministic
	}
	if ref[0].Equal(ast.InputRootDocument) {
		return false
	}
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return true
	}
	if len(ref) < 3 || !ref.HasPrefix(ast.MustParseRef("data.policy")) {
		return false
	}
	name, isString := ref[2].Value.(ast.String)
	return isString && l.constant("policy."+string(name), seen)
}
