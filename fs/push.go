package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// A file of which much is read at random is soon wanted as a whole, and each
// read that reaches this process costs ten times what one costs that the
// kernel answers from its pages. So when such reads go on, the file is read in
// order, and given to the kernel (FUSE_NOTIFY_STORE) as if programs had read
// all of it.
//
// What is given must be what the file has: no page of a file that somebody may
// write to is touched, and who opens one to write, or truncates it, waits until
// that is over. Until then no write can have changed a page.

const (
	pushAfter = 500     // reads at random; and
	pushShare = 2 << 20 // bytes of the file for each
	pushPiece = 1 << 20
	pushSmall = 64 << 10 // bytes of a read at random, at most
)

// push is the giving of a file's pages to the kernel.
type push struct {
	by     *handle // whose content it is
	cancel context.CancelFunc
	ended  chan struct{}
}

// strayed takes that a read reached this process, and begins a push when many
// did that do not follow one another.
func (h *handle) strayed(off int64, n int) {
	node := h.n
	node.mu.Lock()
	defer node.mu.Unlock()
	p := &node.pages
	follows := off == p.next
	p.next = off + int64(n)
	if follows || n > pushSmall {
		return
	}
	p.strays++
	if p.strays < pushAfter || int64(p.strays)*pushShare < node.told.size || p.push != nil || p.changing > 0 || !p.onlyReadLocked() {
		return
	}
	p.strays = 0 // they have to go on before the kernel is given again what it threw away
	ctx, cancel := context.WithCancel(context.Background())
	p.push = &push{by: h, cancel: cancel, ended: make(chan struct{})}
	go h.push(ctx, p.push, node.told.size)
}

// onlyReadLocked says whether the kernel may be given pages.
func (p *pages) onlyReadLocked() bool {
	for _, h := range p.handles {
		if h.write {
			return false
		}
	}
	return p.known && p.writes == p.settled
}

// spareMemory is how many bytes of pages the kernel has room for, so that they
// do not push out those of others.
func spareMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10 / 2
		}
	}
	return 0
}

// push reads the file, which is about that large, and gives it to the kernel, up
// to an error.
func (h *handle) push(ctx context.Context, p *push, size int64) {
	defer h.n.pushed(p)
	defer p.cancel()
	if size > spareMemory() {
		return
	}
	buf := make([]byte, pushPiece)
	for off := int64(0); ctx.Err() == nil && !h.n.m.ending.Load(); {
		n, err := h.file.ReadAt(ctx, buf, off)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				h.n.m.log.Debug("a file that is read at random was not read as a whole", "path", h.n.m.places.name(&h.n.node), "err", err)
			}
			return
		}
		if ctx.Err() != nil || h.n.WriteCache(off, buf[:n]) != 0 {
			return
		}
		off += int64(n)
	}
}

// pushed notes the end of a push.
func (n *node) pushed(p *push) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pages.push = nil
	close(p.ended)
}

// endPush ends the push of a file that is about to be changed, or that of one
// handle, and waits for that: for a few pages at most.
func (n *node) endPush(by *handle) {
	n.mu.Lock()
	p := n.pages.push
	n.mu.Unlock()
	if p == nil || by != nil && p.by != by {
		return
	}
	p.cancel()
	<-p.ended
}
