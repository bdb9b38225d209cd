package s3

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

var errStalled = errors.New("the store does not answer")

// watch ends a request that makes no progress.
type watch struct {
	timer   *time.Timer
	timeout time.Duration
	cancel  context.CancelCauseFunc
}

// watch returns the context of a request, and what watches it; to be stopped
// when the request is over.
func (b *bucket) watch(ctx context.Context) (context.Context, *watch) {
	return newWatch(ctx, b.timeout)
}

// watchLong is for requests whose answer waits for the server to move data.
func (b *bucket) watchLong(ctx context.Context) (context.Context, *watch) {
	return newWatch(ctx, 10*b.timeout)
}

func newWatch(ctx context.Context, timeout time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{timeout: timeout, cancel: cancel}
	w.timer = time.AfterFunc(timeout, func() { cancel(errStalled) })
	return ctx, w
}

// progress gives the request its whole time again.
func (w *watch) progress() { w.timer.Reset(w.timeout) }

// pause stops the clock until the next progress.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// upload reads a source as the body of a request. It remembers a failure of
// the source, and can be cut off: the transport may go on reading when the
// request is over.
type upload struct {
	w *watch

	mu  sync.Mutex // also held while the source is read
	src backend.Source
	off int64
	err error // of the source
}

func (b *bucket) upload(w *watch, src backend.Source) *upload { return &upload{w: w, src: src} }

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.err != nil:
		return 0, u.err
	case u.src == nil:
		return 0, io.ErrClosedPipe
	}
	u.w.progress()
	left := u.src.Size() - u.off
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := u.src.ReadAt(p[:min(int64(len(p)), left)], u.off)
	u.off += int64(n)
	if n > 0 {
		return n, nil // an error will come again
	}
	if err == io.EOF || err == nil && len(p) > 0 {
		err = io.ErrUnexpectedEOF
	}
	u.err = err
	return 0, err
}

func (u *upload) Seek(offset int64, whence int) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.src == nil:
		return 0, io.ErrClosedPipe
	case whence == io.SeekCurrent:
		offset += u.off
	case whence == io.SeekEnd:
		offset += u.src.Size()
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	u.off = offset
	return offset, nil
}

// end cuts the source off, and returns the error that reading it gave.
func (u *upload) end() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.src = nil
	return u.err
}
