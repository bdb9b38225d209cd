package httpio

import (
	"net/http"

	"github.com/keifs/keifs/backend"
)

// Kind is the sentinel of an answer by its HTTP status alone, for where the
// store's own code says no more. What a status means in one store only (400,
// 409) is ErrIO here: its provider looks at it first.
func Kind(status int) error {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return backend.ErrNotExist
	case http.StatusForbidden:
		return backend.ErrPermission
	case http.StatusUnauthorized:
		return backend.ErrCredentials
	case http.StatusPreconditionFailed, http.StatusNotModified:
		return backend.ErrPrecondition
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return backend.ErrThrottled
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return backend.ErrUnsupported
	case http.StatusInsufficientStorage:
		return backend.ErrNoSpace
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return backend.ErrTooLarge
	case http.StatusRequestURITooLong:
		return backend.ErrBadKey
	case http.StatusRequestTimeout:
		return backend.ErrTransient
	}
	if status >= 500 {
		return backend.ErrTransient
	}
	return backend.ErrIO
}
