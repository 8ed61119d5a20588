package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// callWithin bounds one request, beside the time that it may wait for work.
const callWithin = 30 * time.Second

// client is one connection of a sender or a phone. It writes requests that were
// made before and reads answers, and little else, so that the servers have what
// the machine can give.
type client struct {
	conn   net.Conn
	reader *bufio.Reader
	answer bytes.Buffer
	stop   func() bool
}

func dial(ctx context.Context, address string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &client{
		conn: conn, reader: bufio.NewReader(conn),
		stop: context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }),
	}, nil
}

func dialAll(ctx context.Context, address string, n int) ([]*client, error) {
	all := make([]*client, n)
	for i := range all {
		var err error
		if all[i], err = dial(ctx, address); err != nil {
			closeAll(all[:i])
			return nil, err
		}
	}
	return all, nil
}

func closeAll(all []*client) {
	for _, c := range all {
		c.close()
	}
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close()
}

// do sends a request and gives the answer's body, valid until the next one.
func (c *client) do(ctx context.Context, request []byte) ([]byte, error) {
	err := c.conn.SetDeadline(time.Now().Add(callWithin))
	if err == nil && ctx.Err() == nil { // or the deadline just set undid that of stop
		_, err = c.conn.Write(request)
	}
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("send a request: %w", err)
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err == nil {
		c.answer.Reset()
		_, err = c.answer.ReadFrom(response.Body)
		err = errors.Join(err, response.Body.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("read an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var said struct {
			Code string `json:"code"`
		}
		_ = json.Unmarshal(c.answer.Bytes(), &said) // what is no JSON says nothing more
		return nil, &refusal{response.StatusCode, said.Code}
	}
	return c.answer.Bytes(), nil
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	code   string
}

func (r *refusal) Error() string { return fmt.Sprintf("the server answered %d %s", r.status, r.code) }

// message is an item of a post.
type message struct {
	Phone   string `json:"phone"`
	Message string `json:"message"`
}

// texts are n messages of a usual length.
func texts(n int) []message {
	all := make([]message, n)
	for i := range all {
		all[i] = message{
			Phone:   fmt.Sprintf("+1555%07d", i),
			Message: "Your order has left our warehouse and should be with you by tomorrow noon. Reply STOP to hear no more.",
		}
	}
	return all
}

// caller makes the requests of the queue dialect for an account.
type caller struct{ address, token string }

func (p *process) caller(account int) caller { return caller{p.hello.Address, p.hello.Tokens[account]} }

// post asks to queue n messages.
func (c caller) post(n int) ([]byte, error) {
	body, err := json.Marshal(texts(n))
	return c.request("POST", "queue", body), err
}

// pull asks for a page of messages, and waits for one so many seconds.
func (c caller) pull(device string, page, wait int) []byte {
	return c.request("GET", fmt.Sprintf("get_messages?device=%s&limit=%d&wait=%d", device, page, wait), nil)
}

// report says that a page was delivered.
func (c caller) report(device string, page []byte) (request []byte, messages int, err error) {
	var pulled []struct {
		Hash string `json:"hash"`
	}
	if err := json.Unmarshal(page, &pulled); err != nil {
		return nil, 0, errors.New("read a page: it is not the JSON of the queue dialect")
	}
	type outcome struct {
		Hash   string `json:"hash"`
		Status int    `json:"status"`
	}
	outcomes := make([]outcome, len(pulled))
	for i, m := range pulled {
		outcomes[i] = outcome{m.Hash, 2}
	}
	body, err := json.Marshal(struct {
		Device   string    `json:"device"`
		Messages []outcome `json:"messages"`
	}{device, outcomes})
	return c.request("POST", "status", body), len(pulled), err
}

func (c caller) request(method, path string, body []byte) []byte {
	head := fmt.Appendf(nil, "%s /api/%s/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		method, c.token, path, c.address, len(body))
	return append(head, body...)
}
