//go:build linux

package lossyfs

import "math/rand/v2"

// place is a name in a directory.
type place struct {
	dir  *node
	name string
}

// naming is a creation (to), a removal (from) or a rename (both) that may not be durable yet.
type naming struct {
	node     *node
	from, to place
}

// rename changes names as their readers see them.
func (d *Disk) rename(c naming) {
	if c.from.dir != nil {
		delete(c.from.dir.children, c.from.name)
	}
	if c.to.dir != nil {
		c.to.dir.children[c.to.name] = c.node
		c.node.parent, c.node.name = c.to.dir, c.to.name
	}
	d.pending = append(d.pending, c)
}

func (c naming) in(dir *node) bool { return c.from.dir == dir || c.to.dir == dir }

// covered says which changes a sync of n makes durable.
func (d *Disk) covered(n *node) func(naming) bool {
	switch d.names {
	case Journaled:
		return func(naming) bool { return true }
	case WithFile:
		above := map[*node]bool{}
		for at := n; at != nil; at = at.parent {
			above[at] = true
		}
		return func(c naming) bool { return above[c.node] || c.in(n) }
	default:
		return func(c naming) bool { return c.in(n) }
	}
}

// lucky draws the changes that survive without a sync.
func (d *Disk) lucky(draw *rand.Rand) func(naming) bool {
	if d.names != Journaled {
		return func(naming) bool { return draw.IntN(2) == 0 }
	}
	// They are asked about from the last to the first.
	lost := draw.IntN(len(d.pending) + 1)
	return func(naming) bool { lost--; return lost < 0 }
}

// commit makes the chosen changes durable, and what went before at the same places. It asks from the last to the first.
func (d *Disk) commit(chosen func(naming) bool) {
	taken := make([]bool, len(d.pending))
	places := map[place]bool{}
	for i := len(d.pending) - 1; i >= 0; i-- {
		c := d.pending[i]
		if !chosen(c) && !places[c.from] && !places[c.to] {
			continue
		}
		taken[i] = true
		for _, p := range []place{c.from, c.to} {
			if p.dir != nil {
				places[p] = true
			}
		}
	}
	var left []naming
	for i, c := range d.pending {
		if !taken[i] {
			left = append(left, c)
			continue
		}
		if c.from.dir != nil {
			delete(c.from.dir.durable, c.from.name)
		}
		if c.to.dir != nil {
			c.to.dir.durable[c.to.name] = c.node
		}
	}
	d.pending = left
}
