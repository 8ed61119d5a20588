//go:build linux

// Package lossyfs is a disk in memory, mounted as a file system, that forgets at a power cut what was not synced.
//
// Contents: what fsync, fdatasync or a write with O_SYNC has finished survives. Of what was written after, each page of
// 4 KiB is found as it was at some moment since, now and then with its last write torn between two sectors. Names:
// three promises to choose from (Names); of what no sync has covered, chance decides. Modes and times always survive.
package lossyfs

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Names says which creations, renames and removals a sync makes durable.
type Names int

const (
	// Journaled is what ext4 and xfs do: any sync makes all names durable that were changed before, in their order.
	Journaled Names = iota
	// WithFile is less: a sync of a file covers its own name and the directories above, one of a directory the names in
	// it as well.
	WithFile
	// WithDirectory is all that POSIX promises: the sync of a directory covers the names in it, and nothing else does.
	WithDirectory
)

// syncTime is what a sync takes, as on a good disk, so that others come in while it runs.
const syncTime = 200 * time.Microsecond

// Disk is a disk that one process at a time has mounted.
type Disk struct {
	// Ignored, if set, makes a disk that lies: it answers the syncs of these paths and does nothing.
	Ignored func(path string) bool

	names  Names
	server *fuse.Server
	dir    string

	mu      sync.Mutex
	root    *node
	last    uint64 // inode number
	pending []naming
	synced  int
	left    int    // changes until the power fails; 0: it stays
	then    func() // what is done when it fails
	off     bool
	gone    chan struct{} // closed when what waits on a disk without power is to fail
}

// New makes an empty disk.
func New(names Names) *Disk {
	d := &Disk{names: names, gone: make(chan struct{})}
	d.root = d.newNode(true, 0o700)
	return d
}

// node is a file or a directory.
type node struct {
	id       uint64
	mode     uint32
	modified time.Time
	parent   *node
	name     string
	contents contents
	children map[string]*node // nil for a file
	durable  map[string]*node // of them
}

func (d *Disk) newNode(isDir bool, mode uint32) *node {
	d.last++
	n := &node{id: d.last, mode: mode & 0o777, modified: time.Now()}
	if isDir {
		n.children, n.durable = map[string]*node{}, map[string]*node{}
	}
	return n
}

// path is where the node was last seen.
func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	return path.Join(n.parent.path(), n.name)
}

// CutAfter makes the power fail instead of the nth change from now, and then calls then; 0 takes that back. A disk
// without power answers nothing until Unplug.
func (d *Disk) CutAfter(n int, then func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.then = n, then
}

// Cut makes the power fail now.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// Off says whether the power has failed.
func (d *Disk) Off() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// Unplug lets everything fail that waits for a disk without power. Whoever waits should be dead by then: nobody has seen
// an error of a disk that was off.
func (d *Disk) Unplug() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		select {
		case <-d.gone:
		default:
			close(d.gone)
		}
	}
}

// begin admits an operation and locks the disk. It returns false, and has locked nothing, once the disk is unplugged.
func (d *Disk) begin(changes bool) bool {
	d.mu.Lock()
	if changes && !d.off && d.left > 0 {
		if d.left--; d.left == 0 {
			d.off = true
			go d.then()
		}
	}
	if !d.off {
		return true
	}
	gone := d.gone
	d.mu.Unlock()
	<-gone
	return false
}

// sync makes a node durable.
func (d *Disk) sync(n *node) {
	d.synced++
	if d.Ignored != nil && d.Ignored(n.path()) {
		return
	}
	n.contents.sync()
	d.commit(d.covered(n))
}

// Synced counts the syncs of files and directories.
func (d *Disk) Synced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced
}

// Sync makes everything durable, as time does.
func (d *Disk) Sync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commit(func(naming) bool { return true })
	d.root.each(func(n *node) { n.contents.sync() })
}

// Lost says what a power cut took.
type Lost struct {
	Pages int // versions of pages that were written and not found
	Torn  int // writes of which a part was found
	Names int // changes of names
}

// Restart gives the power back, after an unmount: the disk holds what is durable, and of the rest what draw leaves.
func (d *Disk) Restart(draw *rand.Rand) (lost Lost) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commit(d.lucky(draw))
	lost.Names = len(d.pending)
	d.pending = nil
	d.root.each(func(n *node) {
		n.children = maps.Clone(n.durable)
		n.contents.restart(draw, &lost)
	})
	d.off, d.left, d.gone = false, 0, make(chan struct{})
	return lost
}

// each visits what is durable, from the top, in the same order every time.
func (n *node) each(f func(*node)) {
	f(n)
	for _, name := range slices.Sorted(maps.Keys(n.durable)) {
		child := n.durable[name]
		child.parent, child.name = n, name
		child.each(f)
	}
}

// Add adds what another cut took.
func (l *Lost) Add(o Lost) {
	l.Pages += o.Pages
	l.Torn += o.Torn
	l.Names += o.Names
}
