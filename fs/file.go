package fs

import (
	"context"
	"errors"
	"io"
	"sync"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// fileNode is a regular file; FIFOs and sockets are as well, which the kernel
// never opens here.
type fileNode struct {
	node
	joining sync.Mutex // held while a handle is compared with the others and joins them
}

// handle is an open file.
type handle struct {
	n      *fileNode
	file   store.File
	write  bool
	append bool

	once sync.Once
}

// Open implements gofs.NodeOpener.
func (n *fileNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, errno) {
	// A truncation is a change; anything else only asks.
	ctx, done := n.m.patient(ctx)
	defer done()
	if flags&openTruncate != 0 {
		ctx = steadfast(ctx)
		defer n.change()()
	}
	arrived := n.m.arriving(ctx)
	f, err := n.openFile(ctx, store.OpenFlags{Write: writes(flags), Truncate: flags&openTruncate != 0})
	var h *handle
	var fuseFlags uint32
	if err == nil {
		h, fuseFlags, err = n.join(ctx, f, flags)
	}
	arrived(err)
	if err != nil {
		return nil, 0, n.errno("open", err)
	}
	if flags&openTruncate != 0 {
		if err := h.dropPrivileges(ctx); err != nil {
			h.close()
			return nil, 0, n.errno("open", err)
		}
	}
	return h, fuseFlags, 0
}

// openFile opens the file by its name. Where a rename replaced the file since
// the kernel looked the name up, it opens what has the name now.
func (n *fileNode) openFile(ctx context.Context, flags store.OpenFlags) (store.File, error) {
	f, err := at(ctx, &n.node, func(p place) (store.File, error) { return p.tree.Open(ctx, p.path, flags) })
	if err = kindErr(err); errors.Is(err, errGone) {
		if p, ok := n.m.places.successor(&n.node); ok {
			f, err = p.tree.Open(ctx, p.path, flags)
			err = kindErr(err)
		}
	}
	return f, err
}

// join makes a handle of f, just opened. Where others have another version
// open, it does not: the next lookup then finds a node for the new one.
func (n *fileNode) join(ctx context.Context, f store.File, flags uint32) (*handle, uint32, error) {
	n.joining.Lock()
	defer n.joining.Unlock()
	e, joins, err := n.joins(ctx, f)
	if err == nil && !joins {
		n.m.places.remove(&n.node)
		err = errGone
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close(steadfast(ctx)))
	}
	h, fuseFlags := n.attach(f, e, flags)
	n.refreshAttr(e)
	return h, fuseFlags, nil
}

// Read implements gofs.FileReader.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, errno) {
	ctx, done := h.n.m.patient(ctx)
	defer done()
	n, err := h.file.ReadAt(ctx, dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.n.errno("read", err)
	}
	h.strayed(off, n)
	return fuse.ReadResultData(dest[:n]), 0
}

// Write implements gofs.FileWriter.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, errno) {
	ctx = steadfast(ctx)
	if err := h.dropPrivileges(ctx); err != nil {
		return 0, h.n.errno("write", err)
	}
	if h.append {
		off = -1 // the kernel's idea of the end may be old
	}
	h.n.wrote()
	// No short write when the disk is full: of the pages of a mapping, which
	// come here as well, the kernel would take the rest as written.
	n, err := h.file.WriteAt(ctx, data, off)
	return uint32(n), h.n.errno("write", err)
}

// dropPrivileges lets set-uid and set-gid fall when anybody but root writes.
func (h *handle) dropPrivileges(ctx context.Context) error {
	mode := h.n.owner().mode
	safe := withoutPrivileges(mode)
	caller, ok := fuse.FromContext(ctx)
	if mode == safe || ok && caller.Uid == 0 {
		return nil
	}
	safe &= modeBits
	defer h.n.change()()
	e, err := h.file.SetAttr(ctx, store.AttrChange{Mode: &safe})
	if err != nil {
		return err
	}
	h.n.refreshAttr(e)
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.n.attr.mode = e.Mode // once is enough
	return nil
}

// setAttr is Setattr by an open file.
func (h *handle) setAttr(ctx context.Context, c store.AttrChange) (store.Entry, error) {
	if c.Size != nil {
		h.n.wrote()
	}
	return h.file.SetAttr(ctx, c)
}

// Flush implements gofs.FileFlusher: it comes at each close(2), and its error
// is the one of close.
func (h *handle) Flush(ctx context.Context) errno {
	return h.n.errno("close", h.publish(steadfast(ctx), h.file.Flush))
}

// Fsync implements gofs.FileFsyncer.
func (h *handle) Fsync(ctx context.Context, _ uint32) errno {
	return h.n.errno("fsync", h.publish(steadfast(ctx), h.file.Sync))
}

func (h *handle) publish(ctx context.Context, flush func(context.Context) error) error {
	defer h.n.change()()
	before := h.n.writes()
	err := flush(ctx)
	if err != nil {
		h.n.lostPages()
		return err
	}
	if e, err := h.file.Stat(ctx); err == nil {
		h.n.published(e, before)
	}
	return nil
}

// Release implements gofs.FileReleaser.
func (h *handle) Release(context.Context) errno {
	h.close()
	return 0
}

// close ends the handle. Nobody waits for its error, so it is logged: it is
// about what was written through a mapping after the last close.
func (h *handle) close() {
	h.once.Do(func() {
		defer h.n.change()()
		h.n.endPush(h) // before: the next open may be of another version
		h.n.detach(h)
		if err := h.file.Close(context.Background()); err != nil {
			h.n.m.log.Error("changes made after the last close(2) could not be stored", "path", h.n.m.places.name(&h.n.node), "err", err)
		}
	})
}
