package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-cmp/cmp/cmpopts"
)

// sorted compares lists of words in any order.
var sorted = cmpopts.SortSlices(strings.Compare)

// numberStart is how all numbers of these tests begin, after the plus.
const numberStart = "1555"

func number(n int) string { return fmt.Sprintf("+%s%07d", numberStart, n) }

// text is what a sender's nth message says.
func text(sender string, n int) string { return fmt.Sprintf("secret-text-%s-%d", sender, n) }

// api speaks the queue dialect under one token.
type api struct {
	ctx    context.Context
	client *http.Client
	base   string
}

func (s *trunkline) api(token string) api {
	return api{s.Context(), s.client, s.url + "/api/" + token}
}

// sms is a message as a sender posts it.
type sms struct {
	Phone   string `json:"phone"`
	Message string `json:"message"`
}

// outgoing is a message as a phone gets it.
type outgoing struct {
	Phone string `json:"phone"`
	Text  string `json:"text"`
	Hash  string `json:"hash"`
}

// answer is any answer. Of one that breaks off there is only the status.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// queued is the body of an answer to a post, or of a refusal.
type queued struct {
	Items []struct {
		Hash string `json:"hash"`
	} `json:"items"`
	Code  string `json:"code"`
	Limit int    `json:"limit"`
	Used  int    `json:"used"`
}

func (a answer) queued() (q queued) {
	_ = json.Unmarshal([]byte(a.body), &q)
	return q
}

// do makes a request. An error can come together with a status, when the answer broke off.
func (a api) do(method, path, body string, header ...string) (answer, error) {
	request, err := http.NewRequestWithContext(a.ctx, method, a.base+path, strings.NewReader(body))
	if err != nil {
		return answer{}, errors.New("the address cannot be called")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := a.client.Do(request)
	if err != nil {
		var inURL *url.Error // which would print the token
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return answer{}, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(got)}, err
}

// post queues messages, under a key unless it is empty.
func (a api) post(key string, messages ...sms) (answer, error) {
	body, err := json.Marshal(messages)
	if err != nil {
		return answer{}, err
	}
	if key == "" {
		return a.do(http.MethodPost, "/queue", string(body))
	}
	return a.do(http.MethodPost, "/queue", string(body), "Idempotency-Key", key)
}

// pull gets a page of at most limit messages for a device, and waits for it so many seconds.
func (a api) pull(device string, limit, wait int) ([]outgoing, error) {
	got, err := a.do(http.MethodGet, fmt.Sprintf("/get_messages?device=%s&limit=%d&wait=%d", device, limit, wait), "")
	if err != nil {
		return nil, err
	}
	var page []outgoing
	if got.status != http.StatusOK {
		return nil, fmt.Errorf("pull: got %v", got)
	}
	if err := json.Unmarshal([]byte(got.body), &page); err != nil {
		return nil, fmt.Errorf("pull: %w", err)
	}
	return page, nil
}

// The states that phones report.
const (
	success = 2
	failure = 3
)

// report says that messages ended in a state, and gives how many that changed.
func (a api) report(device string, state int, page []outgoing) (updated int, err error) {
	type item struct {
		Hash   string `json:"hash"`
		Status int    `json:"status"`
	}
	said := struct {
		Device   string `json:"device"`
		Messages []item `json:"messages"`
	}{Device: device}
	for _, m := range page {
		said.Messages = append(said.Messages, item{m.Hash, state})
	}
	body, err := json.Marshal(said)
	if err != nil {
		return 0, err
	}
	got, err := a.do(http.MethodPost, "/status", string(body))
	if err != nil {
		return 0, err
	}
	var back struct {
		OK      bool `json:"ok"`
		Updated int  `json:"updated"`
	}
	if err := json.Unmarshal([]byte(got.body), &back); err != nil || got.status != http.StatusOK || !back.OK {
		return 0, fmt.Errorf("report: got %v, %w", got, err)
	}
	return back.Updated, nil
}
