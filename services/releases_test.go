package services_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	releaseFaults = regexp.MustCompile(`fault\.New\(fault\.\w+, "([a-z_]+)", "([^"]+)"`)
	releaseLimit  = regexp.MustCompile("\\(([^)]+\\.go)\\) `([^`]+)` \\|$")
)

// TestReleasesPage holds the errors and the limits on the page of releases to
// those in the code.
func TestReleasesPage(t *testing.T) {
	text := read(t, "../docs/releases.md")
	page := space.ReplaceAllString(text, " ")
	source := sources(t, "ingress/api/releases", "ingress/releases")
	count := 0
	for _, match := range releaseFaults.FindAllStringSubmatch(source, -1) {
		count++
		if want := `{"error":"` + match[2] + `","code":"` + match[1] + `"}`; !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, match := range said.FindAllStringSubmatch(page, -1) {
		if !strings.Contains(source, match[1]) {
			t.Errorf("the page tells of an error %q, which there is not", match[1])
		}
	}
	_, rows, _ := strings.Cut(text, "\n## Limits\n")
	rows, _, _ = strings.Cut(rows, "\n## ")
	for line := range strings.Lines(rows) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| limit ") {
			continue
		}
		count++
		match := releaseLimit.FindStringSubmatch(line)
		if match == nil {
			t.Errorf("this row does not end with a file and its line: %s", line)
			continue
		}
		if source := space.ReplaceAllString(read(t, filepath.Join("../docs", match[1])), " "); !strings.Contains(source, match[2]) {
			t.Errorf("%s does not hold %q any more: %s", match[1], match[2], line)
		}
	}
	if count < 18 {
		t.Errorf("found %d errors and limits: the test looks in the wrong place", count)
	}
}
