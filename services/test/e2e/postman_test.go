package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
)

const (
	postmanCollection  = "../../../docs/postman/trunkline.postman_collection.json"
	postmanEnvironment = "../../../docs/postman/SelfHostedSMS.postman_environment.json"
	postmanSchema      = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
)

// collection is what this test reads of Postman's format.
type collection struct {
	Info struct {
		Schema string `json:"schema"`
	} `json:"info"`
	Items     []postmanItem     `json:"item"`
	Variables []postmanVariable `json:"variable"`
}

type postmanVariable struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// postmanItem is a folder or a request.
type postmanItem struct {
	Name   string        `json:"name"`
	Items  []postmanItem `json:"item"`
	Auth   *postmanAuth  `json:"auth"`
	Events []struct {
		Listen string `json:"listen"`
		Script struct {
			Lines []string `json:"exec"`
		} `json:"script"`
	} `json:"event"`
	Request   *postmanRequest   `json:"request"`
	Responses []postmanResponse `json:"response"`
}

type postmanRequest struct {
	Method string            `json:"method"`
	Auth   *postmanAuth      `json:"auth"`
	Header []postmanVariable `json:"header"`
	URL    postmanURL        `json:"url"`
	Body   struct {
		Raw string `json:"raw"`
	} `json:"body"`
}

type postmanURL struct {
	Raw   string            `json:"raw"`
	Host  []string          `json:"host"`
	Path  []string          `json:"path"`
	Query []postmanVariable `json:"query"`
}

type postmanAuth struct {
	Type   string            `json:"type"`
	Basic  []postmanVariable `json:"basic"`
	Bearer []postmanVariable `json:"bearer"`
}

type postmanResponse struct {
	Code   int               `json:"code"`
	Status string            `json:"status"`
	Header []postmanVariable `json:"header"`
	Body   string            `json:"body"`
}

// Every request of the collection is answered as its saved answer shows.
func TestPostman(t *testing.T) {
	t.Parallel()
	var all collection
	readJSON(t, postmanCollection, &all)
	if all.Info.Schema != postmanSchema {
		t.Errorf("got the schema %q, want %q", all.Info.Schema, postmanSchema)
	}
	s := launch(t, process, 1)
	s.publish(apktest.App{Version: "1.2.0", Code: 5}, "--notes=- Bug fixes\n- Performance improvements", "--min-code", "3", "--activate")
	testkit.Eventually(t, "the server hears of it", func() bool { return s.download("/api/app-version").status == http.StatusOK })
	token := s.accountWithLogin("postman", seedLogin, seedPassword)
	p := &postman{s: s, values: environment(t, map[string]string{
		"base_url": s.url, "api_token": token, "login": seedLogin, "password": seedPassword,
		"device_username": "MyPhone", "device_password": seedPassword,
	})}
	s.command("device", "create", "MyPhone", "--account", "postman", "--password", seedPassword)
	for _, v := range all.Variables {
		p.values[v.Key] = v.Value
	}
	var folders []string
	for _, folder := range all.Items {
		folders = append(folders, folder.Name)
		if len(folder.Items) == 0 {
			t.Errorf("the folder %s is empty", folder.Name)
		}
		t.Run(folder.Name, func(t *testing.T) {
			for _, item := range folder.Items {
				t.Run(item.Name, func(t *testing.T) { p.replay(t, item, folder.Auth) })
			}
		})
	}
	if diff := cmp.Diff([]string{"App Version", "SMS Queue", "SMS API (3rdparty)", "SMS Nodes"}, folders); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
}

// environment gives the variables of the environment the values that the test has, which have to be all.
func environment(t *testing.T, values map[string]string) map[string]string {
	t.Helper()
	var e struct {
		Name   string            `json:"name"`
		Values []postmanVariable `json:"values"`
	}
	readJSON(t, postmanEnvironment, &e)
	if e.Name != "SelfHostedSMS" {
		t.Errorf("the environment's name is %q, want SelfHostedSMS", e.Name)
	}
	given := map[string]string{}
	for _, v := range e.Values {
		value, ok := values[v.Key]
		if !ok {
			t.Errorf("the environment has the variable %s, which this test does not know", v.Key)
		}
		given[v.Key] = value
	}
	if len(given) != len(values) {
		t.Errorf("the environment has %d variables, want %d", len(given), len(values))
	}
	return given
}

func readJSON(t *testing.T, file string, to any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// postman replays requests in order.
type postman struct {
	s      *trunkline
	values map[string]string // of variables
}

var (
	postmanName = regexp.MustCompile(`\{\{([^}]+)\}\}`)
	postmanTest = regexp.MustCompile(`^pm\.test\("Status is (\d+)", \(\) => pm\.response\.to\.have\.status\((\d+)\)\);$`)
	postmanSet  = regexp.MustCompile(`^pm\.collectionVariables\.set\("(\w+)", pm\.response\.json\(\)\.([\w.\[\]]+)\);$`)
	postmanStep = regexp.MustCompile(`\w+`)
)

// fill puts in what variables stand for.
func (p *postman) fill(t *testing.T, text string) string {
	t.Helper()
	return postmanName.ReplaceAllStringFunc(text, func(name string) string {
		value := p.values[strings.Trim(name, "{}")]
		if value == "" {
			t.Fatalf("%s has no value", name)
		}
		return value
	})
}

func (p *postman) replay(t *testing.T, item postmanItem, auth *postmanAuth) {
	if item.Request == nil || len(item.Responses) != 1 {
		t.Fatalf("got %d saved answers, want a request with one", len(item.Responses))
	}
	want := item.Responses[0]
	if want.Status != http.StatusText(want.Code) {
		t.Errorf("the saved answer says %d %s", want.Code, want.Status)
	}
	got := p.send(t, *item.Request, auth)
	if got.status != want.Code {
		t.Fatalf("got %v, want %d", got, want.Code)
	}
	for _, header := range want.Header {
		if is := got.header.Get(header.Key); is != header.Value {
			t.Errorf("got %s %q, want %q", header.Key, is, header.Value)
		}
	}
	var body any
	if strings.Contains(got.header.Get("Content-Type"), "json") {
		var shown any
		if err := json.Unmarshal([]byte(want.Body), &shown); err != nil {
			t.Fatalf("the saved answer: %v", err)
		}
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		for _, problem := range otherShape(shown, body, want.Code >= http.StatusBadRequest, nil) {
			t.Errorf("%s in %s", problem, got.body)
		}
	} else if want.Body != "" {
		t.Errorf("the saved answer has a body of %d bytes, and is no JSON", len(want.Body))
	}
	p.script(t, item, want.Code, body)
}

func (p *postman) send(t *testing.T, r postmanRequest, auth *postmanAuth) answer {
	t.Helper()
	if parts := r.URL.parts(); parts != r.URL.Raw {
		t.Errorf("the address is %s and in parts %s", r.URL.Raw, parts)
	}
	var header []string
	for _, one := range r.Header {
		header = append(header, one.Key, p.fill(t, one.Value))
	}
	if r.Auth != nil {
		auth = r.Auth
	}
	if auth == nil {
		t.Fatal("nothing says who calls")
	}
	switch auth.Type {
	case "basic":
		pair := p.fill(t, setting(auth.Basic, "username")+":"+setting(auth.Basic, "password"))
		header = append(header, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	case "bearer":
		header = append(header, "Authorization", "Bearer "+p.fill(t, setting(auth.Bearer, "token")))
	case "noauth":
	default:
		t.Fatalf("got the auth %q", auth.Type)
	}
	got, err := api{t.Context(), p.s.client, ""}.do(r.Method, p.fill(t, r.URL.Raw), p.fill(t, r.Body.Raw), header...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// parts is the address as its parts make it, which Postman shows.
func (u postmanURL) parts() string {
	all := strings.Join(append(slices.Clone(u.Host), u.Path...), "/")
	for i, one := range u.Query {
		all += string("?&"[min(i, 1)]) + one.Key + "=" + one.Value
	}
	return all
}

func setting(all []postmanVariable, key string) string {
	for _, one := range all {
		if one.Key == key {
			return one.Value
		}
	}
	return ""
}

// script does what the request's script does: it tests the status and remembers parts of the answer.
func (p *postman) script(t *testing.T, item postmanItem, status int, body any) {
	t.Helper()
	tested := false
	for _, event := range item.Events {
		if event.Listen != "test" {
			t.Errorf("got a script for %s", event.Listen)
		}
		for _, line := range event.Script.Lines {
			if match := postmanTest.FindStringSubmatch(line); match != nil {
				tested = true
				if want := strconv.Itoa(status); match[1] != want || match[2] != want {
					t.Errorf("the script tests for %s (%s), and the saved answer has %s", match[2], match[1], want)
				}
			} else if match := postmanSet.FindStringSubmatch(line); match != nil {
				p.values[match[1]] = fmt.Sprint(at(body, match[2]))
				if at(body, match[2]) == nil {
					t.Errorf("the answer has no %s", match[2])
				}
			} else {
				t.Errorf("this test does not know what %q does", line)
			}
		}
	}
	if !tested {
		t.Error("no script tests the status")
	}
}

// at finds a part of a value, as in items[0].hash.
func at(value any, path string) any {
	for _, step := range postmanStep.FindAllString(path, -1) {
		switch in := value.(type) {
		case map[string]any:
			value = in[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(in) {
				return nil
			}
			value = in[i]
		default:
			return nil
		}
	}
	return value
}
