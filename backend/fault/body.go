package fault

import (
	"errors"
	"io"
)

var (
	errInjected = errors.New("injected fault")
	errCut      = errors.New("injected cut of the body")
)

// cutReader gives left bytes of body, then fails.
type cutReader struct {
	body io.Reader
	left int64
	err  error
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, r.err
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}
