package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A group that was accepted is read, listed and cancelled, however long its text is and whatever JSON makes of it.
func TestLargestGroups(t *testing.T) {
	t.Parallel()
	s := launch(t, inside, 1)
	l, _ := s.loginOf("large")
	for name, test := range map[string]struct {
		char       string
		json       int // bytes of it in JSON
		recipients int
	}{"plain": {"x", 1, 48}, "markup": {"<", 1, 100}, "control": {"\x01", 6, 100}} {
		length := min((3<<20/test.recipients-2)/test.json, 65535)
		text, err := json.Marshal(strings.Repeat(test.char, length))
		if err != nil {
			t.Fatal(err)
		}
		var numbers []string
		for i := range test.recipients {
			numbers = append(numbers, fmt.Sprintf(`"+120255501%02d"`, i))
		}
		got, err := l.call("POST", "/messages", fmt.Sprintf(`{"id":%q,"phoneNumbers":[%s],"textMessage":{"text":%s}}`, name, strings.Join(numbers, ","), text))
		if err != nil {
			t.Fatal(err)
		}
		if got.status != http.StatusAccepted {
			t.Fatalf("%s: not accepted: %d %.100s", name, got.status, got.body)
		}
		group := s.must(200)(l.call("GET", "/messages/"+name, ""))
		if len(group.Recipients) != test.recipients || group.Recipients[test.recipients-1].PhoneNumber == "" {
			t.Errorf("%s: read %d recipients", name, len(group.Recipients))
		}
		listed, err := l.call("GET", "/messages?limit=1&includeContent=true", "")
		var groups []message
		if err != nil || listed.status != http.StatusOK || json.Unmarshal([]byte(listed.body), &groups) != nil || len(groups) != 1 ||
			groups[0].ID != name || len(groups[0].Recipients) != test.recipients {
			t.Errorf("%s: listed as %d, %v", name, listed.status, err)
		}
		if got, err := l.call("POST", "/messages", fmt.Sprintf(`{"id":%q,"phoneNumbers":["+12025550100"],"message":"m"}`, name)); err != nil || got.status != http.StatusConflict {
			t.Errorf("%s: its id again: %d, %v", name, got.status, err)
		}
		s.must(200)(l.call("DELETE", "/messages/"+name, ""))
		for i, recipient := range s.must(200)(l.call("GET", "/messages/"+name, "")).Recipients {
			if recipient.State != "Cancelled" {
				t.Errorf("%s: recipient %d is %s after the cancel", name, i, recipient.State)
				break
			}
		}
	}
	if got, err := l.call("GET", "/messages?limit=1", ""); err != nil || got.status != http.StatusOK {
		t.Errorf("one without its content: %d, %v", got.status, err)
	}
}
