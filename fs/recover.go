package fs

import (
	"fmt"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// panicked is called by go-fuse where the code of a request panics: the
// request fails, and the mount lives on.
func (m *mounted) panicked(what any) fuse.Status {
	m.log.Error("panic in a request; this is a bug in keifs", "panic", fmt.Sprint(what), "stack", string(debug.Stack()))
	return fuse.Status(errPanicked)
}
