package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// The exit statuses; README.md lists them.
const (
	exitFailed      = 1 // anything that is none of the others
	exitUsage       = 2 // flags, -o, environment, configuration file
	exitDir         = 3 // the mount's directory: not there, not empty, mounted, busy
	exitStore       = 4 // the bucket is not there, or refuses
	exitUnreachable = 5 // no answer from the endpoint
	exitSystem      = 6 // this machine lacks what a mount needs
)

// failure is an error with the exit status it leads to.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

func usageError(format string, args ...any) error { return fail(exitUsage, format, args...) }

// exitStatus is the status of the whole command for its error.
func exitStatus(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	is := func(kinds ...error) bool {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	switch {
	case is(backend.ErrUnreachable, backend.ErrTransient, backend.ErrThrottled):
		return exitUnreachable
	case is(backend.ErrNoBucket, backend.ErrPermission, backend.ErrCredentials, store.ErrFormat, store.ErrReadOnly):
		return exitStore
	case is(store.ErrCache, store.ErrCacheFull):
		return exitSystem
	}
	return exitFailed
}

// oneLine is the text of an error without line breaks.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
