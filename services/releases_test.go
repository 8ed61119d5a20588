package services_test

import (
	"regexp"
	"strings"
	"testing"
)

var releaseFaults = regexp.MustCompile(`fault\.New\(fault\.\w+, "([a-z_]+)", "([^"]+)"`)

// TestReleasesPage holds the errors on the page of releases to those in the code. TestLimits_ForPeople does so with its
// limits.
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
	for _, match := range errorTexts.FindAllStringSubmatch(page, -1) {
		if !strings.Contains(source, match[1]) {
			t.Errorf("the page tells of an error %q, which there is not", match[1])
		}
	}
	if count < 6 {
		t.Errorf("found %d errors: the test looks in the wrong place", count)
	}
}
