package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/services/operator"
)

var (
	shell  = regexp.MustCompile("(?ms)^```sh$(.*?)^```$")
	inline = regexp.MustCompile("`trunkline ([a-z][^`]*)`")
)

// Every command that the documents show is one that the parser takes.
func TestCommandsInDocuments(t *testing.T) {
	pages, err := filepath.Glob("../../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.md", "*/*.md"} {
		more, err := filepath.Glob("../../../docs/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range commandsIn(string(text)) {
			found++
			parser := newParser(&operator.Terminal{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
			helped := false
			parser.Exit = func(int) { helped = true } // after --help
			if _, err := parser.Parse(strings.Fields(command)); err != nil && !helped {
				t.Errorf("%s: trunkline %s: %v", page, command, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("got %d commands: the test looks in the wrong place", found)
	}
}

// commandsIn gives the arguments of the commands that a page shows: whole lines
// in shell blocks, and in the text those that name a command.
func commandsIn(page string) []string {
	var all []string
	for _, block := range shell.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "bin/")
			if args, ok := strings.CutPrefix(line, "trunkline "); ok {
				all = append(all, args)
			}
		}
	}
	for _, match := range inline.FindAllStringSubmatch(page, -1) {
		command := strings.Fields(match[1])
		if slices.ContainsFunc(command, func(word string) bool { return word == "…" }) || len(command) == 1 && command[0] != "serve" && command[0] != "demo" {
			continue // names a group of commands
		}
		all = append(all, match[1])
	}
	return all
}

func TestCommandsIn(t *testing.T) {
	page := "Run `trunkline stream list`, not `trunkline account`.\n```sh\ntrunkline account show shop\ncurl x\nbin/trunkline serve\n```\n```\ntrunkline no command\n```\n"
	got := commandsIn(page)
	if want := []string{"account show shop", "serve", "stream list"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
