// SPDX-License-Identifier: Apache-2.0

// Command rego-engine evaluates the rules of execution policies that are more than data. It is a child of whoever
// decides: one JSON document to a line on standard input, one to a line on standard output, in turn. It keeps no
// history: what a question is about comes with it.
//
// With -confine it first gives up everything that it does not need (see confine.go), and refuses to run where it cannot.
// With -reference it offers every built-in function of the Open Policy Agent, for comparison with other enforcers;
// never in a guest.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

// maxLine is how long one document may be, in bytes: a policy of 2 MiB with every character escaped fits.
const maxLine = 32 << 20

type link struct {
	in  *bufio.Reader
	out *bufio.Writer
}

// receive reads one document; io.EOF when the other side is done.
func (l *link) receive(into any) error {
	var line []byte
	for {
		part, err := l.in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return err
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber() // whole numbers stay whole, however large
	return decoder.Decode(into)
}

func (l *link) send(document any) error {
	line, err := json.Marshal(document)
	if err != nil {
		return err
	}
	if len(line) >= maxLine {
		return fmt.Errorf("an answer of more than %d bytes", maxLine)
	}
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return err
	}
	return l.out.Flush()
}

type request struct {
	Load  *loadRequest  `json:"load"`
	Query *queryRequest `json:"query"`
	Drop  string        `json:"drop"`
}

type failure struct {
	Error string `json:"error"`
}

func main() {
	confined := flag.Bool("confine", false, "give up all privileges first")
	serving := flag.Bool("confined", false, "set by -confine itself, for the process that serves")
	reference := flag.Bool("reference", false, "offer every built-in function")
	flag.Parse()
	if *confined && !*serving {
		fail(confine())
	}
	if *serving {
		fail(filterSystemCalls())
	}
	other := &link{bufio.NewReaderSize(os.Stdin, 1<<16), bufio.NewWriterSize(os.Stdout, 1<<16)}
	err := serve(other, newEngine(other, *reference))
	if err != io.EOF {
		fail(err)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "rego-engine: %v\n", err)
		os.Exit(1)
	}
}

func serve(other *link, engine *engine) error {
	for {
		var asked request
		if err := other.receive(&asked); err != nil {
			return err
		}
		var answer any
		var err error
		switch {
		case asked.Load != nil:
			answer, err = engine.load(asked.Load)
		case asked.Query != nil:
			answer, err = engine.query(asked.Query)
		default:
			delete(engine.policies, asked.Drop)
			answer = struct{}{}
		}
		if engine.broken != nil {
			return engine.broken
		}
		if err != nil {
			answer = failure{err.Error()}
		}
		if err := other.send(answer); err != nil {
			return err
		}
	}
}
