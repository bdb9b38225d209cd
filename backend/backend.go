// Package backend is the asynchronous object-store interface that everything
// above it uses, its errors, and what every provider gets for free.
//
// The types to know are [Backend], which a provider implements; [Info], what a
// store says of one object; [Caps], what a bucket was seen to do; and the
// optional powers [Copier], [Assembler], [Discarder], [BatchDeleter],
// [Versioner] and [Renamer], which are found with [As]. Decorators are built with [Intercept].
//
// "Asynchronous" in Go is a blocking, context-first method that is safe for
// concurrent use: callers start as many as they like, and one process-wide
// scheduler (package sched) decides how many are on the wire.
package backend

import (
	"context"
	"io"
	"time"
)

// Backend is one bucket, or one prefix of a bucket. Keys are relative to it.
//
// One method is one request to the store (a listing: one page), so that one
// scheduler slot and one retry cover it. All methods are safe for concurrent
// use. Errors wrap the sentinels of this package; a cancelled context gives
// the context's error.
type Backend interface {
	// Stat returns what the store knows of key, with its metadata.
	// It returns ErrNotExist when there is no such object.
	Stat(ctx context.Context, key string) (Info, error)

	// Get reads the object, or the range that opts names, and hands the body
	// to fn, once per attempt: a decorator that retries calls fn again from
	// the start, so fn must begin anew each time. fn must not call the
	// Backend, nor block on anything that does. An error of fn ends the
	// request and is returned as it is; it is retried only where it wraps
	// what the body's Read returned. A body that ends early or breaks makes
	// Read return ErrTransient. fn need not read to the end.
	//
	// A range that starts at or beyond the end of the object hands fn an
	// empty body. ErrPrecondition is returned when opts.IfMatch is set and
	// the object has another ETag.
	Get(ctx context.Context, key string, opts GetOptions, fn func(info Info, body io.Reader) error) error

	// Put stores the whole object atomically: readers see the old or the new
	// one, and after a nil error it survives any crash of this machine (for a
	// local store) or is acknowledged by the store. ErrPrecondition is
	// returned when opts.Cond does not hold (also for IfMatch of an object
	// that is not there), an error of src as it is (io.ErrUnexpectedEOF when
	// it is shorter than its Size), ErrBadKey when the store can
	// never hold such a key, ErrTooLarge when the source is over
	// Caps().MaxPut bytes. The returned Info has the ETag of what was stored.
	Put(ctx context.Context, key string, src Source, opts PutOptions) (Info, error)

	// Delete removes the object. Deleting what is not there succeeds, unless
	// cond.IfMatch is set: then it returns ErrNotExist or ErrPrecondition.
	// cond.IfAbsent is ErrInvalid.
	Delete(ctx context.Context, key string, cond Cond) error

	// ListPage returns one page of keys in ascending byte order.
	ListPage(ctx context.Context, opts ListOptions) (Page, error)

	// Caps says what this bucket can do. It sends no request.
	Caps() Caps

	// Name is the canonical URL of the store without secrets, for logs,
	// journals and people: "s3://bucket/prefix".
	Name() string

	// Close releases what the provider holds. No other call may follow.
	io.Closer
}

// Info is what a store says of one object.
type Info struct {
	Key     string
	Size    int64     // bytes
	ETag    string    // opaque version of the content, without quotes; compare for equality only
	ModTime time.Time // when the store took it; seconds resolution on most, the same in all answers but that to a change

	// Date is what the store's clock said, in whole seconds or finer, when it
	// answered a Stat, Put or Copy; zero where that is not known.
	Date time.Time

	// VersionID names the version on a versioned bucket: who overwrites or
	// deletes the object does not touch it. Else empty.
	VersionID string

	// Metadata is the user metadata, names in lower case. Nil where the call
	// does not tell (listings); empty, not nil, where there is none.
	Metadata map[string]string

	ContentType string // empty where the call does not tell
}

// Source is the content of a Put: rewindable, so that a retry can read it
// again, and readable in parallel. It must not change while a call uses it.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Summed is a Source that may know the CRC-32C of its bytes, so that nobody has
// to read it for that.
type Summed interface {
	CRC32C() (sum uint32, known bool)
}

// Cond is the condition of a change. The zero value is no condition. At most
// one field is set, else ErrInvalid. Where Caps says that the bucket does not
// honour a condition, it gives ErrUnsupported or is ignored: callers do without.
type Cond struct {
	IfMatch  string // the object must exist with this ETag
	IfAbsent bool   // the object must not exist
}

// GetOptions selects what Get reads. The zero value is the whole object.
type GetOptions struct {
	Offset    int64
	Length    int64  // bytes; 0 is up to the end
	IfMatch   string // fail with ErrPrecondition where the ETag is another
	VersionID string // this version; ErrUnsupported where the bucket has none
}

// PutOptions goes with a Put or an assembly.
type PutOptions struct {
	Cond Cond

	// Metadata: names in lower case, of ASCII letters, digits, '-' and '_';
	// values of printable ASCII without a space at either end; else
	// ErrInvalid. ErrTooLarge above Caps().MaxMetadata. Dropped where
	// Caps().Metadata is false.
	Metadata    map[string]string
	ContentType string // empty: application/octet-stream

	// NoCopies, of an assembly, says that no part will be copied: there are
	// stores that keep checksums of such assemblies only.
	NoCopies bool
}

// ListOptions selects a page.
type ListOptions struct {
	Prefix string // a plain string prefix, not a folder

	// Delimited collapses everything behind the next '/' after Prefix into
	// one entry of Page.Prefixes.
	Delimited bool

	Token string // Page.Next of the page before; empty for the first

	// After leaves out what does not sort behind it: a key or, when
	// Delimited, an entry of Prefixes. Where Caps().ListAfter, and no Token
	// is given; else it is ignored.
	After string

	Limit int // entries at most, prefixes included; 0 is the store's own page size; below 0 is ErrInvalid
}

// Page is one page of a listing. Objects and Prefixes are each in ascending
// byte order, and every entry of this page sorts before every one of the next.
type Page struct {
	Objects  []Info   // without Metadata and ContentType
	Prefixes []string // whole, ending in '/', when Delimited
	Next     string   // token of the next page; empty at the end

	// Date is as Info.Date, and not after the listing. A store tells it with
	// every page that has objects: what is deleted by its age is measured by it.
	Date time.Time
}

// Caps is what a bucket can do: what its provider knows, or what a probe saw.
type Caps struct {
	CondCreate    bool // Put with IfAbsent has exactly one winner
	CondOverwrite bool // Put with IfMatch fails on another ETag
	CondDelete    bool // Delete with IfMatch fails on another ETag
	CondBatch     bool // DeleteBatch leaves an object with another ETag than IfMatch
	CondCopy      bool // Copy honours the condition on its destination
	CondAssemble  bool // Assembly.Complete honours its condition
	Metadata      bool // user metadata is kept
	Copy          bool // server-side copy works
	Versions      bool // the bucket keeps versions
	StrongList    bool // a listing shows every write acknowledged before it
	ListAfter     bool // ListOptions.After is heeded
	ObjectPrefix  bool // "a" and "a/b" can both exist

	MaxPut      int64 // bytes one Put takes; 0 is no limit
	MaxCopy     int64 // bytes one Copy takes; 0 is no limit
	MinPart     int64 // bytes of each part of an assembly but the last
	MaxPart     int64 // bytes of one part at most; 0 is no limit
	MaxParts    int   // parts of one assembly; 0 is no limit
	MaxKey      int   // bytes of a key
	MaxMetadata int   // bytes of all metadata names and values together; 0 is no limit

	// ChangeEvery is the time between two changes of one key that the store
	// asks for; sooner may be ErrThrottled. 0 is no limit.
	ChangeEvery time.Duration
}

// Copier copies on the server.
type Copier interface {
	// Copy makes dst a copy of src; the two may be the same key, to replace
	// metadata. It returns ErrNotExist when src is not there, ErrPrecondition
	// when opts.SourceETag does not match or opts.Cond does not hold (where
	// Caps().CondCopy; elsewhere the provider returns ErrUnsupported for a
	// condition rather than ignore it), ErrTooLarge above Caps().MaxCopy. The
	// Info has at least Key and ETag; Size is -1 and Metadata nil where the
	// store does not tell.
	Copy(ctx context.Context, src, dst string, opts CopyOptions) (Info, error)
}

// CopyOptions goes with a Copy.
type CopyOptions struct {
	SourceETag    string            // the source must have it; empty: any
	SourceVersion string            // this version of the source; ErrUnsupported where the bucket has none
	Cond          Cond              // of the destination
	Metadata      map[string]string // nil keeps the source's, else replaces it
}

// Assembler builds one object from parts: bytes of the caller, and ranges of
// objects that the store already has.
type Assembler interface {
	// Assemble begins an assembly. opts.Cond is checked at its end.
	Assemble(ctx context.Context, key string, opts PutOptions) (Assembly, error)
}

// Assembly is one object being built. Parts are numbered from 1, without
// gaps in the end (ErrInvalid at Complete, as for no parts at all), and may be
// sent in any order and in parallel; sending a number again replaces that
// part. A Complete that succeeds, or Abort, ends it.
type Assembly interface {
	PutPart(ctx context.Context, number int, src Source) error
	// CopyPart takes length bytes at offset of object key, which must have
	// the ETag (empty: any).
	CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error
	// Complete publishes the object atomically; ErrPrecondition when the
	// condition does not hold.
	Complete(ctx context.Context) (Info, error)
	// Abort discards the parts. It may be called after a failed Complete.
	Abort(ctx context.Context) error
}

// Discarder is an Assembler whose unfinished assemblies stay in the store, and
// cost money there, when the process that began them dies.
type Discarder interface {
	// Discard ends an assembly of a process before by its [AssemblyID]. One
	// that has ended is no error.
	Discard(ctx context.Context, key, id string) error
}

// BatchDeleter deletes many objects by one request.
type BatchDeleter interface {
	// DeleteBatch deletes at most 1000 objects. The result has one entry for
	// each, nil where it is gone; the error is that of the request as a whole,
	// and then the result is nil. Where Caps().CondBatch, an object with
	// another ETag than IfMatch stays: ErrPrecondition; one that is not there
	// is nil or ErrNotExist. Elsewhere IfMatch is ErrUnsupported, in the error
	// or in the entry, or is ignored: callers do without.
	DeleteBatch(ctx context.Context, objects []Deletion) ([]error, error)
}

// Deletion is one object of a batch.
type Deletion struct {
	Key     string
	IfMatch string // the object must have this ETag; empty: any
}

// Versioner sees the versions of a versioned bucket.
type Versioner interface {
	// VersionsPage is one page of versions below opts.Prefix, by key, then
	// newest first. Delimited is not supported; opts.After leaves out the
	// versions of keys that do not sort behind it.
	VersionsPage(ctx context.Context, opts ListOptions) (VersionsPage, error)
}

// VersionsPage is one page of versions.
type VersionsPage struct {
	Versions []Version
	Next     string
}

// Version is one version of an object, or the mark of its deletion.
type Version struct {
	Info
	Deleted bool
	Latest  bool
}

// Renamer renames atomically; only stores where it is atomic have it.
type Renamer interface {
	// Rename moves one object. ErrNotExist when src is not there,
	// ErrPrecondition when cond does not hold of dst.
	Rename(ctx context.Context, src, dst string, cond Cond) (Info, error)
}
