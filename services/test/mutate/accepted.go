package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// accepted.txt lists mutants that no test needs to find, in three lines each: the name of the package and the function,
// the change, and why nobody can see a difference.
//
//go:embed accepted.txt
var acceptedText string

type acceptance struct {
	line                          int
	pkg, function, change, reason string
}

// readAccepted reads the list.
func readAccepted(text string) ([]acceptance, error) {
	var all []acceptance
	var lines []string
	for number, line := range strings.Split(text+"\n", "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "# ") {
			continue
		}
		if line != "" {
			lines = append(lines, line)
			continue
		}
		if len(lines) == 0 {
			continue
		}
		if len(lines) != 3 {
			return nil, fmt.Errorf("accepted.txt:%d: an entry has three lines, got %d", number, len(lines))
		}
		pkg, function, ok := strings.Cut(lines[0], " ")
		reason, because := strings.CutPrefix(lines[2], "because ")
		if !ok || !because || reason == "" {
			return nil, fmt.Errorf("accepted.txt:%d: want the package and the function, the change, and because", number)
		}
		all = append(all, acceptance{number, pkg, function, lines[1], reason})
		lines = nil
	}
	return all, nil
}

// accept picks the accepted ones of a package's mutants, with the reason. An entry without a mutant is an error.
func accept(list []acceptance, c *code, mutants []*mutant) (map[int]string, error) {
	reasons := map[int]string{}
	for _, a := range list {
		if a.pkg != c.name {
			continue
		}
		applies := false
		for _, m := range mutants {
			if m.in == a.function && m.change == a.change {
				reasons[m.id], applies = a.reason, true
			}
		}
		if !applies {
			return nil, fmt.Errorf("accepted.txt:%d: %s has no such mutant any more: %s: %s", a.line, a.pkg, a.function, a.change)
		}
	}
	return reasons, nil
}
