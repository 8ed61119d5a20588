package bench

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// A server is told what to do on its standard input and answers on its standard
// output, an order and an answer of JSON at a time. It says hello first, and
// stops when its input ends.
type order struct {
	Do      string        `json:"do"`
	Account int           `json:"account,omitempty"` // fill: whose messages
	Count   int           `json:"count,omitempty"`   // fill: how many; publish: in a commit
	For     time.Duration `json:"for,omitempty"`     // publish: how long
	Name    string        `json:"name,omitempty"`    // rebuild: the projection
	File    string        `json:"file,omitempty"`    // profile: where to; empty ends it
}

// What a server can be told to do.
const (
	doUse     = "use"     // say what the process has used so far
	doProfile = "profile" // begin or end a CPU profile
	doFill    = "fill"    // store messages past HTTP (product)
	doRebuild = "rebuild" // rebuild a projection (product)
	doPublish = "publish" // store commits one after the other (engine)
)

// answer is a server's. Error is set where it could not do it.
type answer struct {
	Error    string            `json:"error,omitempty"`
	Use      use               `json:"use,omitzero"`
	Messages int               `json:"messages,omitempty"`
	Took     time.Duration     `json:"took,omitempty"`
	Latency  []byte            `json:"latency,omitempty"` // an encoded histogram, in microseconds
	Events   map[string]uint64 `json:"events,omitempty"`  // by stream
}

// hello says where senders and phones reach a server, and as whom.
type hello struct {
	Error    string              `json:"error,omitempty"`
	Address  string              `json:"address,omitempty"`
	Tokens   []string            `json:"tokens,omitempty"` // of each account
	Accounts []streams.AccountID `json:"accounts,omitempty"`
}

// The accounts of a server.
const (
	probeAccount = iota // whose messages say that all before them is folded
	workAccount         // whose phones pull
	firstSender         // from here on whose senders post
	accountCount = firstSender + 4
)
