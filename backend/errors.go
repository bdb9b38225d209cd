package backend

import "errors"

// The sentinels that every error of a Backend wraps. A provider chooses one
// where the error is born, with fmt.Errorf("…: %w", …) or [Fail], and keeps
// the store's own words in the text. They are deliberately not those of io/fs:
// a lost local cache file must not read as "your object does not exist".
var (
	// ErrNotExist: there is no such object.
	ErrNotExist = errors.New("object does not exist")
	// ErrNoBucket: the bucket or root folder itself is not there.
	ErrNoBucket = errors.New("bucket does not exist")
	// ErrPrecondition: a condition did not hold; somebody else was first.
	ErrPrecondition = errors.New("precondition failed")
	// ErrPermission: the store refuses these credentials, or the bucket is read-only for them.
	ErrPermission = errors.New("permission denied by the store")
	// ErrCredentials: there are no credentials, or the store does not know them.
	ErrCredentials = errors.New("credentials missing or invalid")
	// ErrThrottled: the store asks for fewer requests. Retried, and the window of its host shrinks.
	ErrThrottled = errors.New("throttled by the store")
	// ErrTransient: a failure that may pass: connection cut, body cut, 500, 503, time-out. Retried.
	ErrTransient = errors.New("temporary failure of the store")
	// ErrUnreachable: no connection to the endpoint at all (name, refused, TLS). Retried like ErrTransient.
	ErrUnreachable = errors.New("store unreachable")
	// ErrBadKey: this store can never hold an object of that name.
	ErrBadKey = errors.New("key not possible in this store")
	// ErrTooLarge: more bytes, parts or metadata than the store takes.
	ErrTooLarge = errors.New("too large for the store")
	// ErrNoSpace: the store is full, or over its quota.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrUnsupported: the store does not have this operation or condition.
	ErrUnsupported = errors.New("not supported by the store")
	// ErrInvalid: the call itself is wrong; a mistake of the program.
	ErrInvalid = errors.New("invalid request")
	// ErrCorrupt: what arrived is not what was stored (checksum, framing).
	ErrCorrupt = errors.New("corrupt data")
	// ErrIO: a failure that is none of the others and that a retry does not mend.
	ErrIO = errors.New("input/output error of the store")
)

// ErrAmbiguous goes along with ErrPrecondition or ErrNotExist, and never
// alone: an earlier attempt of the same change failed without an answer and may
// have won, so that the one who "was first" may be the caller itself. Compare
// the content before believing in a conflict. It says nothing that an errno
// could, and so is not among the [Sentinels].
var ErrAmbiguous = errors.New("an earlier attempt may have succeeded")

// Sentinels lists the errors by which a failure is classified, for exhaustive tables and their tests.
func Sentinels() []error {
	return []error{
		ErrNotExist, ErrNoBucket, ErrPrecondition, ErrPermission, ErrCredentials, ErrThrottled, ErrTransient,
		ErrUnreachable, ErrBadKey, ErrTooLarge, ErrNoSpace, ErrUnsupported, ErrInvalid, ErrCorrupt, ErrIO,
	}
}

// Error is an error of a store with the operation and key it belongs to.
type Error struct {
	Op   string // "get", "put", …
	Key  string // empty where there is none
	Kind error  // one of the sentinels
	Err  error  // the store's own words; may be nil
}

// Fail makes an Error. It returns nil when kind is nil.
func Fail(op, key string, kind, err error) error {
	if kind == nil {
		return nil
	}
	return &Error{Op: op, Key: key, Kind: kind, Err: err}
}

func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s += " " + e.Key
	}
	s += ": " + e.Kind.Error()
	if e.Err != nil && e.Err.Error() != e.Kind.Error() {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap lets errors.Is find the sentinel and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Retryable says whether a retry of the same request may succeed.
func Retryable(err error) bool {
	return errors.Is(err, ErrTransient) || errors.Is(err, ErrThrottled) || errors.Is(err, ErrUnreachable)
}
