package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// sender posts messages as a client of the queue dialect does.
type sender struct {
	client *http.Client
	url    string // holds the token
	tally  *tally
}

type smsJSON struct {
	Phone   string `json:"phone"`
	Message string `json:"message"`
}

// post posts n messages, again as long as the server says that it took none.
func (s sender) post(ctx context.Context, n int) error {
	body, err := messages(n)
	if err != nil {
		return err
	}
	for {
		begun := time.Now()
		hashes, pause, err := s.try(ctx, body)
		if err != nil {
			return err
		}
		if pause == 0 {
			s.tally.accepted(hashes, begun)
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func messages(n int) ([]byte, error) {
	all := make([]smsJSON, n)
	for i := range all {
		all[i] = smsJSON{Phone: "+1555" + fmt.Sprintf("%07d", i), Message: "Your parcel is on its way. Track it in the app."}
	}
	return json.Marshal(all)
}

// try posts once. A pause says that nothing was stored and when to try again.
func (s sender) try(ctx context.Context, body []byte) (hashes []string, pause time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		var inURL *url.Error // which would print the token
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return nil, 0, fmt.Errorf("queue messages: %w", err)
	}
	defer response.Body.Close()
	var answer struct {
		Code  string `json:"code"`
		Items []struct {
			Hash string `json:"hash"`
		} `json:"items"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, 0, fmt.Errorf("queue messages: read the answer %d: %w", response.StatusCode, err)
	}
	after, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	if after > 0 && answer.Code != "outcome_unknown" {
		return nil, time.Duration(after) * time.Second, nil
	}
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("queue messages: the server answered %d %s", response.StatusCode, answer.Code)
	}
	for _, item := range answer.Items {
		hashes = append(hashes, item.Hash)
	}
	return hashes, 0, nil
}
