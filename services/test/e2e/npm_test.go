package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
)

// driven is what drive.mjs prints.
type driven struct {
	Version  string `json:"version"`
	Messages struct {
		Accepted int    `json:"accepted"`
		First    string `json:"first"`
		Second   string `json:"second"`
		Third    string `json:"third"`
	} `json:"messages"`
	Devices []string `json:"devices"`
	State   struct {
		State      string `json:"state"`
		Recipients []struct {
			PhoneNumber string `json:"phoneNumber"`
			State       string `json:"state"`
		} `json:"recipients"`
	} `json:"state"`
	Calls []struct {
		Method string `json:"method"`
		Path   string `json:"path"`
		Status int    `json:"status"`
		Type   string `json:"type"`
	} `json:"calls"`
}

// A client library of SMSGate, as its users get it, does all that it can do.
func TestNPM(t *testing.T) {
	t.Parallel()
	dir := npmInstall(t)
	s := launch(t, process, 1)
	for prefix, accepted := range map[string]int{"/3rdparty/v1": http.StatusAccepted, "/api/3rdparty/v1": http.StatusOK} {
		t.Run(strings.ReplaceAll(prefix[1:], "/", "-"), func(t *testing.T) {
			t.Parallel()
			s := s.within(t)
			name := "npm" + strconv.Itoa(accepted)
			token := s.accountWithLogin(name, name, "correct horse "+name)
			phone := s.api(token)
			for _, device := range []string{"npm-leaves", "npm-phone"} {
				if page, err := phone.pull(device, 1, 0); err != nil || len(page) > 0 {
					t.Fatalf("the first call of %s: got %v, %v", device, page, err)
				}
			}
			drive := func(args ...string) driven {
				t.Helper()
				return s.drive(dir, []string{"BASE_URL=" + s.url + prefix, "LOGIN=" + name, "PASSWORD=correct horse " + name}, args...)
			}
			got := drive()
			if got.Version != "3.0.0" || got.Messages.Accepted != accepted {
				t.Errorf("got version %s and status %d, want 3.0.0 and %d", got.Version, got.Messages.Accepted, accepted)
			}
			if diff := cmp.Diff([]string{"npm-leaves", "npm-phone"}, got.Devices); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			for _, call := range got.Calls {
				plain := call.Status == http.StatusNoContent || strings.HasSuffix(call.Path, "/inbox/export")
				if !plain && !strings.HasPrefix(call.Type, "application/json") {
					t.Errorf("%s %s: got %d of type %q, want JSON", call.Method, call.Path, call.Status, call.Type)
				}
			}

			// What it sent goes to phones, and what they say comes back.
			page, err := phone.pull("npm-phone", 10, 0)
			if err != nil {
				t.Fatal(err)
			}
			var sent []sms
			for _, m := range page {
				sent = append(sent, sms{m.Phone, m.Text})
			}
			want := []sms{
				{"+15550000001", "secret-text-npm-1"}, {"+15550000002", "secret-text-npm-2"},
				{"+15550000003", "secret-text-npm-2"}, {"15550000004", "secret-text-npm-3"},
			}
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Fatalf("phones got (-want +got):\n%s", diff)
			}
			if state := drive("state", got.Messages.First).State; state.State != "Processed" {
				t.Errorf("with the phone: got %v", state)
			}
			for state, page := range map[int][]outgoing{success: page[:2], failure: page[2:]} {
				if updated, err := phone.report("npm-phone", state, page); err != nil || updated != 2 {
					t.Fatalf("report: got %d, %v", updated, err)
				}
			}
			for id, want := range map[string][]string{
				got.Messages.First:  {"Delivered", "Delivered"},
				got.Messages.Second: {"Sent", "Delivered", "Failed"}, // not all failed, and not all were delivered
				got.Messages.Third:  {"Failed", "Failed"},
			} {
				state := drive("state", id).State
				states := []string{state.State}
				for _, one := range state.Recipients {
					states = append(states, one.State)
				}
				if diff := cmp.Diff(want, states); diff != "" {
					t.Errorf("the states of a message and its recipients (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// drive runs the driver, which has to succeed.
func (s *trunkline) drive(dir string, env []string, args ...string) (got driven) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), "node", append([]string{"drive.mjs"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		s.Fatalf("drive: %v: %s", err, problems.String())
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		s.Fatalf("drive: %v: %s", err, out.String())
	}
	return got
}

// offline is how npm says that it reaches nobody.
var offline = regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|network`)

// npmInstall installs the driver with its client library into a folder of its own.
func npmInstall(t *testing.T) (dir string) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			testnote.Skip(t, name+" is not installed: no client library of SMSGate was driven")
		}
	}
	out, err := exec.Command("node", "--version").Output()
	if version := strings.TrimSpace(string(out)); err != nil || !fresh(version) {
		testnote.Skip(t, "node "+version+" is too old: no client library of SMSGate was driven")
	}
	dir = t.TempDir()
	for _, name := range []string{".npmrc", "package.json", "package-lock.json", "drive.mjs"} {
		content, err := os.ReadFile(filepath.Join("npm", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci")
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	switch {
	case err != nil && offline.Match(said):
		testnote.Skip(t, "npm reaches no registry: no client library of SMSGate was driven")
	case err != nil:
		t.Fatalf("npm ci: %v: %s", err, said)
	}
	return dir
}

// fresh says whether node takes a module for one that does not say so, as the library's: from 20.19 on, and from 22.7.
func fresh(version string) bool {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 2 {
		return false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err != nil || err2 != nil {
		return false
	}
	return major == 20 && minor >= 19 || major == 22 && minor >= 7 || major > 22
}

// The lock file pins the library by its checksum, and leaves open where it comes from.
func TestNPM_Lock(t *testing.T) {
	text, err := os.ReadFile("npm/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct {
			Version   string `json:"version"`
			Resolved  string `json:"resolved"`
			Integrity string `json:"integrity"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, one := range lock.Packages {
		if name == "" {
			continue
		}
		names = append(names, name+" "+one.Version)
		if one.Resolved != "" || !strings.HasPrefix(one.Integrity, "sha512-") {
			t.Errorf("%s: got resolved %q, integrity %q", name, one.Resolved, one.Integrity)
		}
	}
	if want := []string{"node_modules/android-sms-gateway 3.0.0"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if strings.Contains(string(text), "://") {
		t.Error("the lock file holds an address")
	}
}
