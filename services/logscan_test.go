package services_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestLogScan(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script needs a Unix shell")
	}
	token := strings.Repeat("0a1b2c3d", 8)
	tests := []struct {
		name, log, want string // want is in the output of a failure; "" passes
	}{
		{"clean", `{"level":"info","ts":"2026-11-21T06:00:00.000+0100","account":"0123456789abcdef"}`, ""},
		{"empty", "", ""},
		{"masked token", "/api/[token]/queue", ""},
		{"another length", "key=" + token + "e and " + token[1:], ""},
		{"token in a path", "\n/api/" + token + "/queue", "a 64-character token in line 2"},
		{"token alone", token, "a 64-character token in line 1"},
		{"number", `to "+4915112345678"`, "a phone number in line 1"},
		{"marker", "text=secret-text-17", "a marker text in line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(file, []byte(tt.log+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "../scripts/log-scan", file).CombinedOutput()
			if (err == nil) != (tt.want == "") || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v, %q, want %q", err, out, tt.want)
			}
			if strings.Contains(string(out), token) || strings.Contains(string(out), "4915112345678") {
				t.Errorf("the finding repeats the secret: %q", out)
			}
		})
	}
	if out, err := exec.CommandContext(t.Context(), "../scripts/log-scan", filepath.Join(t.TempDir(), "missing")).CombinedOutput(); err == nil {
		t.Errorf("a missing log passed: %q", out)
	}
}
