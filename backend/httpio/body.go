package httpio

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/keifs/keifs/backend"
)

// Body is what a callback of Get reads. It tells a body that ends early from
// its end.
type Body struct {
	Watch  *Watch
	Key    string
	Reader io.Reader
	Left   int64             // bytes to come
	Fail   func(error) error // what a failure of Reader means

	err error // stays
}

// Cut prepares the body for a range, and returns the size of the object.
// contentRange is the header of the answer; it is empty where the store sends
// the whole object.
func (b *Body) Cut(opts backend.GetOptions, contentRange string) (int64, error) {
	if contentRange == "" {
		size := b.Left
		if _, err := io.CopyN(io.Discard, b, min(opts.Offset, size)); err != nil {
			return 0, err
		}
		if opts.Length > 0 && opts.Length < b.Left {
			b.Reader, b.Left = io.LimitReader(b.Reader, opts.Length), opts.Length
		}
		return size, nil
	}
	span, total, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	first, _, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	size, err2 := strconv.ParseInt(total, 10, 64)
	want := size - opts.Offset
	if opts.Length > 0 {
		want = min(want, opts.Length)
	}
	if err1 != nil || err2 != nil || from != opts.Offset || b.Left != want {
		return 0, backend.Fail("get", b.Key, backend.ErrCorrupt,
			fmt.Errorf("asked for %d+%d, got %d bytes as %q", opts.Offset, opts.Length, b.Left, contentRange))
	}
	return size, nil
}

// Read gives what Fail makes of a body that breaks or ends early.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	// The transport notices the end of a context by and by.
	if err := b.Watch.ctx.Err(); err != nil {
		b.err = b.Fail(err)
		return 0, b.err
	}
	b.Watch.Progress()
	n, err := b.Reader.Read(p)
	b.Watch.Pause()
	b.Left -= int64(n)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && b.Left == 0:
		b.err = err
	case err == io.EOF:
		b.err = b.Fail(fmt.Errorf("the body ends %d bytes early", b.Left))
	default:
		b.err = b.Fail(err)
	}
	return n, b.err
}
