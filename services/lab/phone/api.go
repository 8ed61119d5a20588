package phone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/secret"
)

// callTimeout bounds a call beyond the time it may wait for work.
const callTimeout = 30 * time.Second

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 4 << 20

// api is the queue dialect as a phone speaks it.
type api struct {
	client *http.Client
	base   string
	token  secret.String
}

// newClient makes a client for that many phones at a time.
func newClient(phones int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = phones
	return &http.Client{Transport: transport}
}

// refusal is an answer other than 200.
type refusal struct {
	status     int
	text       string // the answer's "error"
	retryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("the server answered %d: %s", r.status, r.text) }

// final says that the same call will never be answered otherwise.
func (r *refusal) final() bool {
	switch r.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

func retryAfter(err error) time.Duration {
	var r *refusal
	if errors.As(err, &r) {
		return r.retryAfter
	}
	return 0
}

// pull gives the hashes of up to limit messages, which are the phone's now.
func (a api) pull(ctx context.Context, device string, limit int, wait time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if device != "" {
		query.Set("device", device)
	}
	if wait > 0 {
		query.Set("wait", strconv.Itoa(int(wait.Round(time.Second).Seconds())))
	}
	var page []struct {
		Hash string `json:"hash"`
	}
	if err := a.call(ctx, http.MethodGet, "get_messages?"+query.Encode(), nil, &page); err != nil {
		return nil, fmt.Errorf("pull: %w", err)
	}
	hashes := make([]string, len(page))
	for i, message := range page {
		hashes[i] = message.Hash
	}
	return hashes, nil
}

// report says what became of messages. It gives how many the server updated.
func (a api) report(ctx context.Context, device string, outcomes []Outcome) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(struct {
		Device   string    `json:"device,omitempty"`
		Messages []Outcome `json:"messages"`
	}{device, outcomes})
	if err != nil {
		return 0, fmt.Errorf("encode report: %w", err)
	}
	var answer struct {
		Updated int `json:"updated"`
	}
	if err := a.call(ctx, http.MethodPost, "status", body, &answer); err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	return answer.Updated, nil
}

func (a api) call(ctx context.Context, method, path string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, a.base+"/api/"+a.token.Reveal()+"/"+path, bytes.NewReader(body))
	if err != nil {
		return errors.New("the server's address or the token cannot stand in a URL")
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		// The client's error names the URL, and the URL holds the token.
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusUnauthorized {
		return ErrUnauthorized
	}
	if response.StatusCode != http.StatusOK {
		refused := &refusal{status: response.StatusCode}
		var said struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(answer, &said) // a proxy's answer is no JSON
		refused.text = said.Error
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
			refused.retryAfter = time.Duration(seconds) * time.Second
		}
		return refused
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return errors.New("the answer is not the JSON of the queue dialect")
	}
	return nil
}
