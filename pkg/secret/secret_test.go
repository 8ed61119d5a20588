package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/secret"
)

const value = "hunter2-hunter2"

type login struct {
	Password secret.String `json:"password" yaml:"password"`
}

func TestStringIsNeverPrinted(t *testing.T) {
	s := secret.String(value)
	in := login{Password: s}
	printed := map[string]string{"String": s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%T"} {
		printed[verb] = fmt.Sprintf(verb, s)
		printed[verb+" in a struct"] = fmt.Sprintf(verb, in)
		printed[verb+" in a slice"] = fmt.Sprintf(verb, []secret.String{s})
	}
	j, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	printed["json"] = string(j)
	y, err := yaml.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	printed["yaml"] = string(y)

	var log bytes.Buffer
	z := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&log), zap.DebugLevel))
	z.Info("login", zap.Any("any", s), zap.Stringer("stringer", s), zap.Reflect("reflect", in), zap.Any("list", []secret.String{s}), zap.Error(fmt.Errorf("wrong password %v", s)))
	z.Sugar().Infow("login", "password", s, "login", in)
	printed["zap"] = log.String()

	plain, hex := value, fmt.Sprintf("%x", value)
	for how, out := range printed {
		if out == "" {
			t.Errorf("%s printed nothing", how)
		}
		if strings.Contains(out, plain) || strings.Contains(strings.ToLower(out), hex) {
			t.Errorf("%s shows the value: %s", how, out)
		}
	}
	if got, want := fmt.Sprint(s), "[secret]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStringDecodes(t *testing.T) {
	var fromJSON, fromYAML login
	if err := json.Unmarshal([]byte(`{"password":"`+value+`"}`), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte("password: "+value), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if got, want := fromJSON.Password.Reveal(), value; got != want {
		t.Errorf("JSON: got %q, want %q", got, want)
	}
	if got, want := fromYAML.Password.Reveal(), value; got != want {
		t.Errorf("YAML: got %q, want %q", got, want)
	}
}

func TestStringEqual(t *testing.T) {
	s := secret.String(value)
	for other, want := range map[secret.String]bool{value: true, value + "x": false, "": false, "Hunter2-hunter2": false} {
		if got := s.Equal(other); got != want {
			t.Errorf("Equal(%d bytes) = %v, want %v", len(other), got, want)
		}
	}
}

func TestMask(t *testing.T) {
	token := strings.Repeat("0a1b2c3d", 8)
	tests := []struct{ path, want string }{
		{"/api/" + token + "/queue", "/api/[token]/queue"},
		{"/api/" + token, "/api/[token]"},
		{"/api/" + token + ";x/queue", "/api/[token]/queue"},
		{"/api/%61" + token[1:] + "/queue", "/api/[token]/queue"},
		{"/" + strings.Repeat("A_-z", 8) + "/", "/[token]/"},
		{"/api/0123456789abcdef/show", "/api/0123456789abcdef/show"},
		{"/" + token[:31], "/" + token[:31]},
		{"/queue?token=abc&limit=5", "/queue?token=[token]&limit=5"},
		{"/queue?Password=abc&flag", "/queue?Password=[token]&flag"},
		{"/queue?pa%73sword=abc", "/queue?pa%73sword=[token]"},
		{"/queue?x=" + token, "/queue?x=[token]"},
		{"/queue?" + token, "/queue?[token]"},
		{"/queue?token=", "/queue?token="},
		{"", ""},
		{"/", "/"},
	}
	for _, tt := range tests {
		if got := secret.Mask(tt.path); got != tt.want {
			t.Errorf("Mask(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("/api/", "/queue")
	f.Add("/queue?token=", "&x=1")
	token := strings.Repeat("0a1b2c3d", 8)
	f.Fuzz(func(t *testing.T, before, after string) {
		if got := secret.Mask(before + token + after); strings.Contains(got, token) {
			t.Errorf("the token is still in %q", got)
		}
	})
}
