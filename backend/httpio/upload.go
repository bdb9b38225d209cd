package httpio

import (
	"errors"
	"io"
	"sync"

	"github.com/keifs/keifs/backend"
)

// Upload reads a source as the body of a request. It remembers a failure of
// the source, and can be cut off: the transport may go on reading when the
// request is over.
type Upload struct {
	w *Watch

	mu  sync.Mutex // also held while the source is read
	src backend.Source
	off int64
	err error // of the source
}

// Upload returns the body of the request.
func (w *Watch) Upload(src backend.Source) *Upload { return &Upload{w: w, src: src} }

// Read gives io.ErrUnexpectedEOF for a source that is shorter than its size.
func (u *Upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.err != nil:
		return 0, u.err
	case u.src == nil:
		return 0, io.ErrClosedPipe
	}
	u.w.Progress()
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

// Seek is that of io.Seeker.
func (u *Upload) Seek(offset int64, whence int) (int64, error) {
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

// Close does nothing: an upload may be read again.
func (u *Upload) Close() error { return nil }

// End cuts the source off, and returns the error that reading it gave.
func (u *Upload) End() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.src = nil
	return u.err
}
