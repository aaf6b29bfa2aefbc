// Command dockerfile reads a Dockerfile as BuildKit does and prints what it says as JSON, so that a test can look at it
// without an engine. It builds nothing. An instruction that BuildKit does not know, and one that its linter would warn
// of, is an error.
//
//	dockerfile DOCKERFILE
//	dockerfile -ignore DOCKERIGNORE <PATHS
//
// With a .dockerignore it prints instead those of the paths on its standard input, one a line, that the build would see.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "dockerfile:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1:
		return dockerfile(args[0], out)
	case len(args) == 2 && args[0] == "-ignore":
		return context(args[1], in, out)
	default:
		return errors.New("usage: dockerfile DOCKERFILE, or dockerfile -ignore DOCKERIGNORE")
	}
}

// file is what is printed. Its words are those of a Dockerfile.
type file struct {
	// GlobalArgs are the ARG instructions before the first FROM.
	GlobalArgs []string `json:"globalArgs"`
	Stages     []stage  `json:"stages"`
}

type stage struct {
	From         string        `json:"from"`
	Platform     string        `json:"platform"`
	Name         string        `json:"name"`
	Instructions []instruction `json:"instructions"`
}

type instruction struct {
	// Name is its first word in lower case.
	Name string `json:"name"`
	// Text is the whole of it.
	Text string `json:"text"`
	// Args are the words of RUN, ENTRYPOINT and USER (a shell's command line is one word), and the KEY=VALUE pairs of
	// ARG and LABEL.
	Args []string `json:"args"`
}

func dockerfile(path string, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var warnings []error
	for _, warning := range parsed.Warnings {
		warnings = append(warnings, fmt.Errorf("%s: %s", path, warning.Short))
	}
	lint := linter.New(&linter.Config{
		Warn: func(rule, _, _, message string, _ []parser.Range) {
			warnings = append(warnings, fmt.Errorf("%s: %s: %s", path, rule, message))
		},
	})
	stages, global, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := errors.Join(warnings...); err != nil {
		return err
	}
	var result file
	for i := range global {
		result.GlobalArgs = append(result.GlobalArgs, global[i].String())
	}
	for _, s := range stages {
		described := stage{From: s.BaseName, Platform: s.Platform, Name: s.Name}
		for _, command := range s.Commands {
			described.Instructions = append(described.Instructions, describe(command))
		}
		result.Stages = append(result.Stages, described)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(result)
}

func describe(command instructions.Command) instruction {
	described := instruction{Name: strings.ToLower(command.Name()), Text: fmt.Sprint(command)}
	switch c := command.(type) {
	case *instructions.RunCommand:
		described.Args = c.CmdLine
	case *instructions.EntrypointCommand:
		described.Args = c.CmdLine
	case *instructions.UserCommand:
		described.Args = []string{c.User}
	case *instructions.ArgCommand:
		for _, arg := range c.Args {
			described.Args = append(described.Args, arg.Key+"="+arg.ValueString())
		}
	case *instructions.LabelCommand:
		for _, label := range c.Labels {
			described.Args = append(described.Args, label.Key+"="+label.Value)
		}
	}
	return described
}

func context(ignore string, in io.Reader, out io.Writer) error {
	f, err := os.Open(ignore)
	if err != nil {
		return err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return fmt.Errorf("%s: %w", ignore, err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return fmt.Errorf("%s: %w", ignore, err)
	}
	paths := bufio.NewScanner(in)
	for paths.Scan() {
		path := paths.Text()
		ignored, err := matcher.MatchesOrParentMatches(path)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", ignore, path, err)
		}
		if !ignored {
			if _, err := fmt.Fprintln(out, path); err != nil {
				return err
			}
		}
	}
	return paths.Err()
}
