package s3_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/s3"
)

func get(b backend.Backend, t *testing.T, key string, opts backend.GetOptions) (string, backend.Info, error) {
	var data []byte
	var info backend.Info
	err := b.Get(t.Context(), key, opts, func(i backend.Info, body io.Reader) (err error) {
		info = i
		data, err = io.ReadAll(body)
		return err
	})
	return string(data), info, err
}

// calls are all requests that a backend can make.
func calls(t *testing.T, b backend.Backend) map[string]func() error {
	put := func(cond backend.Cond) error {
		_, err := b.Put(t.Context(), "k", backend.Bytes([]byte("x")), backend.PutOptions{Cond: cond})
		return err
	}
	return map[string]func() error{
		"stat":        func() error { _, err := b.Stat(t.Context(), "k"); return err },
		"get":         func() error { _, _, err := get(b, t, "k", backend.GetOptions{}); return err },
		"get range":   func() error { _, _, err := get(b, t, "k", backend.GetOptions{Offset: 1, Length: 1}); return err },
		"get version": func() error { _, _, err := get(b, t, "k", backend.GetOptions{VersionID: "v"}); return err },
		"put":         func() error { return put(backend.Cond{}) },
		"put new":     func() error { return put(backend.Cond{IfAbsent: true}) },
		"put if":      func() error { return put(backend.Cond{IfMatch: "e"}) },
		"delete":      func() error { return b.Delete(t.Context(), "k", backend.Cond{}) },
		"delete if":   func() error { return b.Delete(t.Context(), "k", backend.Cond{IfMatch: "e"}) },
		"list":        func() error { _, err := b.ListPage(t.Context(), backend.ListOptions{}); return err },
		"copy": func() error {
			c, _ := backend.As[backend.Copier](b)
			_, err := c.Copy(t.Context(), "k", "l", backend.CopyOptions{})
			return err
		},
		"assemble": func() error {
			a, _ := backend.As[backend.Assembler](b)
			_, err := a.Assemble(t.Context(), "k", backend.PutOptions{})
			return err
		},
		"batch": func() error {
			d, _ := backend.As[backend.BatchDeleter](b)
			_, err := d.DeleteBatch(t.Context(), []backend.Deletion{{Key: "k"}})
			return err
		},
		"versions": func() error {
			v, _ := backend.As[backend.Versioner](b)
			_, err := v.VersionsPage(t.Context(), backend.ListOptions{})
			return err
		},
	}
}

// kind is the one sentinel that err is of.
func kind(t *testing.T, err error) error {
	t.Helper()
	var found error
	for _, s := range backend.Sentinels() {
		if errors.Is(err, s) {
			if found != nil {
				t.Errorf("%v is %q as well as %q", err, found, s)
			}
			found = s
		}
	}
	return found
}

func TestRefusalsBecomeTheSentinels(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	all := calls(t, b)
	for _, test := range []struct {
		calls  string // separated by commas; empty: all but stat, whose refusal has no body
		status int
		code   string
		want   error
	}{
		{"", 403, "AccessDenied", backend.ErrPermission},
		{"", 403, "", backend.ErrPermission},
		{"", 403, "InvalidAccessKeyId", backend.ErrCredentials},
		{"", 403, "SignatureDoesNotMatch", backend.ErrCredentials},
		{"", 400, "ExpiredToken", backend.ErrCredentials},
		{"", 403, "RequestTimeTooSkewed", backend.ErrTransient},
		{"", 404, "NoSuchBucket", backend.ErrNoBucket},
		{"", 503, "SlowDown", backend.ErrThrottled},
		{"", 503, "ServiceUnavailable", backend.ErrThrottled},
		{"", 503, "", backend.ErrThrottled},
		{"", 429, "TooManyRequests", backend.ErrThrottled},
		{"", 429, "", backend.ErrThrottled},
		{"", 500, "InternalError", backend.ErrTransient},
		{"", 500, "", backend.ErrTransient},
		{"", 502, "", backend.ErrTransient},
		{"", 504, "", backend.ErrTransient},
		{"", 400, "RequestTimeout", backend.ErrTransient},
		{"", 501, "NotImplemented", backend.ErrUnsupported},
		{"", 501, "", backend.ErrUnsupported},
		{"", 405, "MethodNotAllowed", backend.ErrUnsupported},
		{"", 400, "KeyTooLongError", backend.ErrBadKey},
		{"", 507, "", backend.ErrNoSpace},
		{"", 403, "QuotaExceeded", backend.ErrNoSpace},
		{"", 400, "MalformedXML", backend.ErrInvalid},
		{"", 418, "", backend.ErrIO},
		{"", 301, "PermanentRedirect", backend.ErrIO},
		{"get,get range,get version,copy,delete if", 404, "NoSuchKey", backend.ErrNotExist},
		{"get version", 400, "InvalidArgument", backend.ErrNotExist},
		{"put if", 404, "NoSuchKey", backend.ErrPrecondition},
		{"put,put new,put if,get,copy,delete if", 412, "PreconditionFailed", backend.ErrPrecondition},
		{"put,put new,put if,copy,delete if", 409, "ConditionalRequestConflict", backend.ErrTransient},
		{"put,put new,copy,assemble", 409, "OperationAborted", backend.ErrTransient},
		{"put,copy,assemble", 409, "ObjectParentIsFile", backend.ErrBadKey},
		{"put,copy,assemble", 409, "ExistingObjectIsDirectory", backend.ErrBadKey},
		{"put,assemble", 400, "MetadataTooLarge", backend.ErrTooLarge},
		{"put", 400, "EntityTooLarge", backend.ErrTooLarge},
		{"put", 400, "BadDigest", backend.ErrTransient},
		{"put", 413, "", backend.ErrTooLarge},
		{"get", 403, "InvalidObjectState", backend.ErrIO},
		{"delete", 404, "NoSuchKey", nil},
		{"stat", 404, "", backend.ErrNotExist},
		{"stat", 412, "", backend.ErrPrecondition},
		{"stat", 503, "", backend.ErrThrottled},
		{"stat", 500, "", backend.ErrTransient},
		{"stat", 403, "", backend.ErrPermission},
		// The GET that follows has the body that a HEAD has not.
		{"stat", 403, "InvalidAccessKeyId", backend.ErrCredentials},
		{"stat", 403, "RequestTimeTooSkewed", backend.ErrTransient},
		{"stat", 400, "KeyTooLongError", backend.ErrBadKey},
	} {
		names := strings.Split(test.calls, ",")
		if test.calls == "" {
			names = nil
			for name := range all {
				if name != "stat" {
					names = append(names, name)
				}
			}
		}
		f.set(refuse(test.status, test.code))
		for _, name := range names {
			err := all[name]()
			if got := kind(t, err); got != test.want {
				t.Errorf("%s: HTTP %d %s gives %v, want %q", name, test.status, test.code, err, test.want)
			}
			if err != nil && test.code != "" && !strings.Contains(err.Error(), "words of the store") {
				t.Errorf("%s: %v does not have the words of the store", name, err)
			}
		}
	}
}

func TestDeletionMarkIsNoObject(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Delete-Marker", "true")
		refuse(405, "MethodNotAllowed")(w, r)
	})
	if _, _, err := get(b, t, "k", backend.GetOptions{VersionID: "v"}); kind(t, err) != backend.ErrNotExist {
		t.Error(err)
	}
}

// Servers that have sent their first line before they fail say so in the body.
func TestErrorBehindAGoodStatusIsAnError(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	all := calls(t, b)
	f.set(say(`<?xml version="1.0"?>` + "\n\n" + `<Error><Code>InternalError</Code><Message>no</Message></Error>`))
	for _, name := range []string{"copy", "batch", "list", "versions", "assemble"} {
		if err := all[name](); kind(t, err) != backend.ErrTransient {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, _ := backend.As[backend.Assembler](b)
	f.set(say(`<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`, `ETag: "e"`))
	asm, err := a.Assemble(t.Context(), "k", backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := asm.PutPart(t.Context(), 1, backend.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]error{
		"InternalError": backend.ErrTransient, "PreconditionFailed": backend.ErrPrecondition, "NoSuchUpload": backend.ErrNotExist,
	} {
		f.set(say(`<Error><Code>` + code + `</Code><Message>no</Message></Error>`))
		if _, err := asm.Complete(t.Context()); kind(t, err) != want {
			t.Errorf("complete: %v, want %q", err, want)
		}
		if err := asm.CopyPart(t.Context(), 2, "k", "", 0, 1); kind(t, err) != want {
			t.Errorf("copypart: %v, want %q", err, want)
		}
	}
}

func batch(keys ...string) (all []backend.Deletion) {
	for _, key := range keys {
		all = append(all, backend.Deletion{Key: key})
	}
	return all
}

// A store can name a key of a batch that it did not delete.
func TestBatchTellsWhichKeysStay(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{Prefix: "p"})
	d, _ := backend.As[backend.BatchDeleter](b)
	f.set(say(`<DeleteResult><Error><Key>p/b</Key><Code>AccessDenied</Code><Message>no</Message></Error>` +
		`<Error><Key>p/c</Key><Code>SlowDown</Code></Error><Error><Key>p/d</Key><Code>NoSuchKey</Code></Error></DeleteResult>`))
	errs, err := d.DeleteBatch(t.Context(), batch("a", "b", "c", "d", strings.Repeat("x", 2000), "b"))
	if err != nil || len(errs) != 6 {
		t.Fatal(errs, err)
	}
	for i, want := range []error{nil, backend.ErrPermission, backend.ErrThrottled, nil, backend.ErrBadKey, backend.ErrPermission} {
		if got := kind(t, errs[i]); got != want {
			t.Errorf("key %d: %v, want %v", i, errs[i], want)
		}
	}
	if r := f.last(); r.Header.Get("Content-Md5") == "" {
		t.Error("no Content-MD5, which some stores insist on")
	}

	f.set(say(`<DeleteResult><Error><Key>p/other</Key><Code>AccessDenied</Code></Error></DeleteResult>`))
	if errs, err := d.DeleteBatch(t.Context(), batch("a")); err == nil {
		t.Errorf("an error of a key that nobody named is lost: %v", errs)
	}
}

func TestNetworkFailures(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for name, call := range calls(t, b) {
		// They must not pass for a context's or a source's.
		err := call()
		if kind(t, err) != backend.ErrTransient || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, cut off: %v", name, err)
		}
	}
	f.set(say("<html>Welcome</html>"))
	for _, name := range []string{"list", "versions"} {
		if err := calls(t, b)[name](); kind(t, err) != backend.ErrTransient {
			t.Errorf("%s, answered by a web page: %v", name, err)
		}
	}
}

func TestCutBodyIsTransient(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	for _, keep := range []int{0, 1, 99_999} {
		f.set(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Header().Set("ETag", `"e"`)
			io.WriteString(w, strings.Repeat("x", keep))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		data, _, err := get(b, t, "k", backend.GetOptions{})
		if kind(t, err) != backend.ErrTransient || errors.Is(err, io.ErrUnexpectedEOF) || len(data) != keep {
			t.Errorf("cut after %d bytes: %d bytes, %v", keep, len(data), err)
		}
	}
	// A listing, too: half of it must not pass for the whole.
	f.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		io.WriteString(w, `<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>`)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if _, err := b.ListPage(t.Context(), backend.ListOptions{}); kind(t, err) != backend.ErrTransient {
		t.Errorf("a cut listing: %v", err)
	}
	f.set(say(`<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>`))
	if _, err := b.ListPage(t.Context(), backend.ListOptions{}); kind(t, err) != backend.ErrTransient {
		t.Errorf("a listing without an end: %v", err)
	}
	f.set(say(`<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`))
	if _, err := b.ListPage(t.Context(), backend.ListOptions{}); kind(t, err) != backend.ErrTransient {
		t.Errorf("a page that does not say where the next begins: %v", err)
	}
}

func TestDamagedBodyIsCorrupt(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(say("other bytes", "ETag: e", "X-Amz-Checksum-Crc32: AAAAAA=="))
	if _, _, err := get(b, t, "k", backend.GetOptions{}); kind(t, err) != backend.ErrCorrupt {
		t.Errorf("a body that does not have its checksum: %v", err)
	}
	f.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-3/100")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "0123")
	})
	if data, _, err := get(b, t, "k", backend.GetOptions{Offset: 4, Length: 4}); kind(t, err) != backend.ErrCorrupt {
		t.Errorf("another range than was asked for: %q, %v", data, err)
	}
}

func TestServerThatIgnoresRangesGivesTheRightBytes(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(say("0123456789", "ETag: e"))
	for _, test := range []struct {
		offset, length int64
		want           string
	}{{2, 3, "234"}, {2, 0, "23456789"}, {8, 5, "89"}, {0, 4, "0123"}, {10, 5, ""}, {12, 0, ""}} {
		data, info, err := get(b, t, "k", backend.GetOptions{Offset: test.offset, Length: test.length})
		if err != nil || data != test.want || info.Size != 10 {
			t.Errorf("%d+%d: %q, %d, %v, want %q", test.offset, test.length, data, info.Size, err, test.want)
		}
	}
}

// Nothing that a request is waiting for may hang for ever.
func TestServerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{Timeout: 100 * time.Millisecond})
	done := make(chan struct{})
	silent := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}
	defer close(done)
	f.set(silent)
	for name, call := range calls(t, b) {
		if err := call(); kind(t, err) != backend.ErrTransient {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "some")
		http.NewResponseController(w).Flush()
		silent(w, r)
	})
	if data, _, err := get(b, t, "k", backend.GetOptions{}); kind(t, err) != backend.ErrTransient || data != "some" {
		t.Errorf("a body that stops: %q, %v", data, err)
	}
	// A reader may take its time.
	f.set(say("slowly", "ETag: e"))
	err := b.Get(t.Context(), "k", backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
		p := make([]byte, 1)
		for range 6 {
			time.Sleep(30 * time.Millisecond)
			if _, err := io.ReadFull(body, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("a slow reader: %v", err)
	}
}
