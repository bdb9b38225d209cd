package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"syscall"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

func TestEverySentinelHasAnErrno(t *testing.T) {
	rows := map[error]errno{}
	for _, row := range errnos {
		if _, twice := rows[row.err]; twice {
			t.Errorf("%v has two rows", row.err)
		}
		rows[row.err] = row.errno
		if row.errno == 0 || row.errno == syscall.ENOSYS {
			t.Errorf("%v: errno %d would be misunderstood", row.err, row.errno)
		}
	}
	for _, err := range append(store.Sentinels(), backend.Sentinels()...) {
		want, ok := rows[err]
		if !ok {
			t.Errorf("no row for %q", err)
			continue
		}
		if got := errnoOf(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%q is %v, want %v", err, got, want)
		}
	}
}

func TestAnUnknownErrorIsEIO(t *testing.T) {
	for _, err := range []error{
		errors.New("new"), io.ErrUnexpectedEOF,
		iofs.ErrNotExist, syscall.ENOENT, // of a local disk: says nothing about the file
		&iofs.PathError{Op: "open", Path: "chunk", Err: syscall.ENOENT},
	} {
		if got := errnoOf(err); got != syscall.EIO {
			t.Errorf("%v is %v, want EIO", err, got)
		}
	}
}

func TestTheStoresOwnWordsDoNotChangeTheErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want errno
	}{
		{nil, 0},
		{backend.Fail("put", "k", backend.ErrPrecondition, errors.New("412")), syscall.ESTALE},
		{fmt.Errorf("%w: %w", store.ErrStale, backend.ErrNotExist), syscall.ESTALE},
		{backend.Fail("get", "k", backend.ErrTransient, context.DeadlineExceeded), syscall.EIO},
		{context.Canceled, syscall.EINTR},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("%v is %v, want %v", c.err, got, c.want)
		}
	}
}
