//go:build linux

package lossyfs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount shows the disk at dir. It takes root.
func (d *Disk) Mount(dir string) error {
	always := time.Hour // nobody changes the disk but the kernel that asks
	options := &fs.Options{EntryTimeout: &always, AttrTimeout: &always}
	options.MountOptions = fuse.MountOptions{FsName: "lossyfs", Name: "lossyfs", DirectMountStrict: true, DisableXAttrs: true}
	server, err := fs.Mount(dir, &inode{disk: d, node: d.root}, options)
	if err != nil {
		return fmt.Errorf("mount a disk that forgets at %s: %w", dir, err)
	}
	d.server, d.dir = server, dir
	return nil
}

// Unmount takes the disk away, also from under whoever uses it.
func (d *Disk) Unmount() error {
	if d.server == nil {
		return nil
	}
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	d.server.Wait()
	d.server = nil
	return nil
}

// inode is a node as one mount knows it.
type inode struct {
	fs.Inode
	disk *Disk
	node *node
}

// handle is an open file.
type handle struct{ sync bool }

func open(flags uint32) handle {
	return handle{flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0}
}

func (n *node) attr(to *fuse.Attr) {
	to.Ino, to.Mode, to.Nlink, to.Blksize = n.id, n.kind()|n.mode, 1, pageSize
	to.Size = uint64(len(n.contents.now))
	to.Blocks = (to.Size + sectorSize - 1) / sectorSize
	to.SetTimes(&n.modified, &n.modified, &n.modified)
}

func (n *node) kind() uint32 {
	if n.children != nil {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

// known gives the kernel a node.
func (i *inode) known(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	n.attr(&out.Attr)
	return i.NewInode(ctx, &inode{disk: i.disk, node: n}, fs.StableAttr{Mode: n.kind(), Ino: n.id})
}

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if !i.disk.begin(false) {
		return nil, syscall.EIO
	}
	defer i.disk.mu.Unlock()
	n := i.node.children[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return i.known(ctx, n, out), 0
}

func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if !i.disk.begin(false) {
		return syscall.EIO
	}
	defer i.disk.mu.Unlock()
	i.node.attr(&out.Attr)
	return 0
}

func (i *inode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if !i.disk.begin(true) {
		return syscall.EIO
	}
	defer i.disk.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		i.node.mode = mode & 0o777
	}
	if size, ok := in.GetSize(); ok {
		i.node.contents.change(change{at: int64(size)})
	}
	i.node.attr(&out.Attr)
	return 0
}

func (i *inode) make(ctx context.Context, name string, isDir bool, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if !i.disk.begin(true) {
		return nil, syscall.EIO
	}
	defer i.disk.mu.Unlock()
	if i.node.children[name] != nil {
		return nil, syscall.EEXIST
	}
	n := i.disk.newNode(isDir, mode)
	i.disk.rename(naming{node: n, to: place{i.node, name}})
	return i.known(ctx, n, out), 0
}

func (i *inode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, errno := i.make(ctx, name, false, mode, out)
	return made, open(flags), 0, errno
}

func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.make(ctx, name, true, mode, out)
}

func (i *inode) Unlink(_ context.Context, name string) syscall.Errno { return i.remove(name) }
func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno  { return i.remove(name) }

func (i *inode) remove(name string) syscall.Errno {
	if !i.disk.begin(true) {
		return syscall.EIO
	}
	defer i.disk.mu.Unlock()
	n := i.node.children[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case len(n.children) > 0:
		return syscall.ENOTEMPTY
	}
	i.disk.rename(naming{node: n, from: place{i.node, name}})
	return 0
}

func (i *inode) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.EINVAL
	}
	if !i.disk.begin(true) {
		return syscall.EIO
	}
	defer i.disk.mu.Unlock()
	to := newParent.(*inode).node
	n, replaced := i.node.children[name], to.children[newName]
	switch {
	case n == nil:
		return syscall.ENOENT
	case replaced != nil && len(replaced.children) > 0:
		return syscall.ENOTEMPTY
	}
	i.disk.rename(naming{n, place{i.node, name}, place{to, newName}})
	return 0
}

func (i *inode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	truncates := flags&syscall.O_TRUNC != 0
	if !i.disk.begin(truncates) {
		return nil, 0, syscall.EIO
	}
	defer i.disk.mu.Unlock()
	if truncates {
		i.node.contents.change(change{})
	}
	return open(flags), 0, 0
}

func (i *inode) Read(_ context.Context, _ fs.FileHandle, to []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if !i.disk.begin(false) {
		return nil, syscall.EIO
	}
	defer i.disk.mu.Unlock()
	now := i.node.contents.now
	return fuse.ReadResultData(to[:copy(to, now[min(off, int64(len(now))):])]), 0
}

func (i *inode) Write(_ context.Context, f fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if len(data) == 0 {
		return 0, 0
	}
	if !i.disk.begin(true) {
		return 0, syscall.EIO
	}
	i.node.contents.change(change{off, slices.Clone(data)})
	i.node.modified = time.Now()
	i.disk.mu.Unlock()
	if h, ok := f.(handle); ok && h.sync {
		if errno := i.sync(); errno != 0 {
			return 0, errno
		}
	}
	return uint32(len(data)), 0
}

func (i *inode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return i.sync() }

func (i *inode) sync() syscall.Errno {
	time.Sleep(syncTime)
	if !i.disk.begin(true) {
		return syscall.EIO
	}
	defer i.disk.mu.Unlock()
	i.disk.sync(i.node)
	return 0
}

// Flush does nothing, and the kernel shall not ask: a fork of the process that serves the disk may close files of it.
func (i *inode) Flush(context.Context, fs.FileHandle) syscall.Errno { return syscall.ENOSYS }

func (i *inode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	if !i.disk.begin(false) {
		return nil, syscall.EIO
	}
	defer i.disk.mu.Unlock()
	var entries []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(i.node.children)) {
		n := i.node.children[name]
		entries = append(entries, fuse.DirEntry{Name: name, Ino: n.id, Mode: n.kind()})
	}
	return fs.NewListDirStream(entries), 0
}

// Statfs shows a disk with room.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks, files = 1 << 24, 1 << 20
	*out = fuse.StatfsOut{
		Blocks: blocks, Bfree: blocks, Bavail: blocks, Bsize: pageSize, Frsize: pageSize,
		Files: files, Ffree: files, NameLen: 255,
	}
	return 0
}
