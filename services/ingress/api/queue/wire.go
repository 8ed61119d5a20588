package queue

import "github.com/trunkline-sms/trunkline/streams"

// queueIn is the body of POST queue. One item alone may stand for the list.
type queueIn = list[messageIn]

// messageIn is an item of POST queue.
type messageIn struct {
	Phone   text `json:"phone"`
	Message text `json:"message"`
	Text    text `json:"text"` // instead of message
}

// queueOut is the answer of POST queue.
type queueOut struct {
	OK     bool         `json:"ok"`
	Queued int          `json:"queued"`
	Failed int          `json:"failed"`
	Items  []queuedOut  `json:"items"`
	Errors []refusedOut `json:"errors"`
}

// queuedOut is an item that was queued.
type queuedOut struct {
	Index int               `json:"index"`
	Hash  streams.MessageID `json:"hash"`
	Phone string            `json:"phone"`
}

// refusedOut is an item that was not queued.
type refusedOut struct {
	Index int    `json:"index"`
	Error string `json:"error"`
}

// outgoingOut is an item of the answer of GET get_messages, which is an array.
type outgoingOut struct {
	Phone string            `json:"phone"`
	Text  string            `json:"text"`
	Hash  streams.MessageID `json:"hash"`
}

// statusIn is the body of POST status.
type statusIn struct {
	Device   text           `json:"device"`
	Messages list[reportIn] `json:"messages"`
}

// reportIn is an item of POST status.
type reportIn struct {
	Hash   text       `json:"hash"`
	Status maybe[int] `json:"status"`
}

// statusOut is the answer of POST status.
type statusOut struct {
	OK      bool         `json:"ok"`
	Updated int          `json:"updated"`
	Errors  []problemOut `json:"errors,omitempty"`
}

// problemOut is an item of POST status that changed nothing.
type problemOut struct {
	Index int    `json:"index"`
	Hash  string `json:"hash"`
	Error string `json:"error"`
}

// faultOut is the answer to a request that was rejected as a whole.
type faultOut struct {
	Error string `json:"error"`
	Code  string `json:"code,omitempty"`
	Limit *int64 `json:"limit,omitempty"`
	Used  *int64 `json:"used,omitempty"`
}
