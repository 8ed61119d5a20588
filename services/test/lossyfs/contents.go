//go:build linux

package lossyfs

import (
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096 // what is written back at once
	sectorSize = 512  // what a disk writes whole or not at all
)

// contents are the bytes of a file.
type contents struct {
	now     []byte // as readers see them
	durable []byte
	pending []change // what leads from the one to the other
}

// change is a write, or with no bytes to write a new size.
type change struct {
	at   int64
	data []byte
}

func (c change) apply(to []byte) []byte {
	end := c.at + int64(len(c.data))
	if c.data == nil && end < int64(len(to)) {
		clear(to[end:])
		return to[:end]
	}
	if missing := end - int64(len(to)); missing > 0 {
		to = slices.Grow(to, int(missing))[:end]
		if c.data == nil {
			clear(to[end-missing:])
		} else if hole := c.at - (end - missing); hole > 0 {
			clear(to[end-missing : c.at])
		}
	}
	copy(to[c.at:], c.data)
	return to
}

func (c *contents) change(ch change) {
	c.now = ch.apply(c.now)
	c.pending = append(c.pending, ch)
}

func (c *contents) sync() {
	for _, ch := range c.pending {
		c.durable = ch.apply(c.durable)
	}
	c.pending = nil
}

// restart leaves what is durable, and of the rest what draw does.
func (c *contents) restart(draw *rand.Rand, lost *Lost) {
	for _, ch := range c.lucky(draw, lost) {
		c.durable = ch.apply(c.durable)
	}
	c.now, c.pending = slices.Clone(c.durable), nil
}

// lucky draws the changes that survive without a sync: of each page the first few.
func (c *contents) lucky(draw *rand.Rand, lost *Lost) (survived []change) {
	var pieces []change
	resizes := 0
	for _, ch := range c.pending {
		if ch.data == nil {
			resizes++
		}
	}
	resizes = draw.IntN(resizes + 1)
	writes := map[int64]int{}
	for _, ch := range c.pending {
		if ch.data == nil {
			if resizes--; resizes < 0 {
				break // nothing that came after it can be there without it
			}
			pieces = append(pieces, ch)
			continue
		}
		for _, piece := range ch.pages() {
			pieces = append(pieces, piece)
			writes[piece.at/pageSize]++
		}
	}
	kept := map[int64]int{}
	for _, piece := range pieces {
		page := piece.at / pageSize
		if piece.data == nil {
			survived = append(survived, piece)
			continue
		}
		if _, drawn := kept[page]; !drawn {
			kept[page] = draw.IntN(writes[page] + 1)
		}
		kept[page]--
		switch {
		case kept[page] >= 0:
			survived = append(survived, piece)
		case kept[page] == -1 && draw.IntN(2) == 0 && piece.tear(draw):
			survived = append(survived, piece)
			lost.Torn++
		default:
			lost.Pages++
		}
	}
	return survived
}

// pages splits a write at the borders of pages.
func (c change) pages() (pieces []change) {
	for len(c.data) > 0 {
		n := min(pageSize-c.at%pageSize, int64(len(c.data)))
		pieces = append(pieces, change{c.at, c.data[:n:n]})
		c = change{c.at + n, c.data[n:]}
	}
	return pieces
}

// tear cuts a write off between two sectors, if it lies on more than one.
func (c *change) tear(draw *rand.Rand) bool {
	first, last := c.at/sectorSize, (c.at+int64(len(c.data))-1)/sectorSize
	if first == last {
		return false
	}
	border := (first + 1 + draw.Int64N(last-first)) * sectorSize
	c.data = c.data[:border-c.at]
	return true
}
