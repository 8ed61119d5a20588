package operator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/table"
)

// Stream are the commands about streams.
type Stream struct {
	List  streamList  `cmd:"" help:"List the streams and how full they are."`
	Apply streamApply `cmd:"" help:"Make the streams of a cluster, or change their replicas and sizes."`
}

type streamList struct {
	server
	asJSON
}

func (streamList) Help() string {
	return "Example:\n\n    trunkline stream list"
}

// streamView is a stream as it is printed.
type streamView struct {
	Name      string    `json:"name"`
	Messages  uint64    `json:"messages"`
	Bytes     uint64    `json:"bytes"`
	MaxBytes  int64     `json:"max_bytes"` // -1: no limit
	Consumers int       `json:"consumers"`
	FirstSeq  uint64    `json:"first_seq"`
	LastSeq   uint64    `json:"last_seq"`
	LastTime  time.Time `json:"last_time,omitzero"`
}

func (c *streamList) Run(ctx context.Context, t *Terminal) error {
	b, closeConn, err := c.dial()
	if err != nil {
		return err
	}
	defer closeConn()
	views := []streamView{}
	lister := b.JS.ListStreams(ctx)
	for info := range lister.Info() {
		views = append(views, streamView{
			Name: info.Config.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
			Consumers: info.State.Consumers, FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq, LastTime: info.State.LastTime,
		})
	}
	if err := lister.Err(); err != nil {
		return fmt.Errorf("list streams: %w", err)
	}
	slices.SortFunc(views, func(x, y streamView) int { return cmp.Compare(x.Name, y.Name) })
	if c.JSON {
		return t.printJSON(views)
	}
	var p table.Table
	p.Row("NAME", "MESSAGES", "BYTES", "FULL", "CONSUMERS", "LAST")
	for _, v := range views {
		last := "-"
		if v.LastSeq > 0 {
			last = formatTime(v.LastTime)
		}
		p.Row(v.Name, v.Messages, v.Bytes, v.full(), v.Consumers, last)
	}
	return p.Print(t.Out)
}

func (v streamView) full() string {
	if v.MaxBytes <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(v.Bytes)/float64(v.MaxBytes))
}
