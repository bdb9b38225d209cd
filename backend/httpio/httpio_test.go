package httpio_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

func body(t *testing.T, text string, left int64) *httpio.Body {
	_, w := httpio.NewWatch(t.Context(), time.Minute)
	t.Cleanup(w.Stop)
	return &httpio.Body{Watch: w, Key: "a", Reader: strings.NewReader(text), Left: left, Fail: func(err error) error {
		return backend.Fail("get", "a", backend.ErrTransient, httpio.Words(err))
	}}
}

func TestABodyThatEndsEarlyIsTransient(t *testing.T) {
	for text, left := range map[string]int64{"whole": 5, "cut": 10} {
		got, err := io.ReadAll(body(t, text, left))
		if want := int64(len(text)) < left; errors.Is(err, backend.ErrTransient) != want || string(got) != text {
			t.Errorf("%q of %d bytes: %q, %v", text, left, got, err)
		}
	}
}

func TestARangeIsTheOneThatWasAskedFor(t *testing.T) {
	for _, c := range []struct {
		header string
		opts   backend.GetOptions
		sent   string
		want   string // empty: corrupt
	}{
		{"", backend.GetOptions{}, "0123456789", "0123456789"}, // a store that does not know ranges
		{"", backend.GetOptions{Offset: 7}, "0123456789", "789"},
		{"", backend.GetOptions{Offset: 3, Length: 2}, "0123456789", "34"},
		{"bytes 3-4/10", backend.GetOptions{Offset: 3, Length: 2}, "34", "34"},
		{"bytes 8-9/10", backend.GetOptions{Offset: 8, Length: 5}, "89", "89"},
		{"bytes 0-1/10", backend.GetOptions{Offset: 3, Length: 2}, "01", ""},
		{"bytes 3-4/10", backend.GetOptions{Offset: 3, Length: 3}, "34", ""},
		{"nonsense", backend.GetOptions{Offset: 3, Length: 2}, "34", ""},
	} {
		b := body(t, c.sent, int64(len(c.sent)))
		size, err := b.Cut(c.opts, c.header)
		if c.want == "" {
			if !errors.Is(err, backend.ErrCorrupt) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || size != 10 {
			t.Errorf("%+v: size %d, %v", c, size, err)
			continue
		}
		if got, err := io.ReadAll(b); err != nil || string(got) != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestARequestWithoutProgressEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, w := httpio.NewWatch(t.Context(), time.Minute)
		defer w.Stop()
		time.Sleep(50 * time.Second)
		w.Progress()
		time.Sleep(50 * time.Second)
		if err := httpio.Ended(ctx, "get", "a"); err != nil {
			t.Errorf("it made progress, but: %v", err)
		}
		w.Pause()
		time.Sleep(time.Hour)
		if err := httpio.Ended(ctx, "get", "a"); err != nil {
			t.Errorf("nobody waits for the store, but: %v", err)
		}
		w.Progress()
		<-ctx.Done()
		if err := httpio.Ended(ctx, "get", "a"); !errors.Is(err, backend.ErrTransient) || errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestACallersEndIsTheCallers(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	ctx, w := httpio.NewWatch(parent, time.Minute)
	defer w.Stop()
	cancel()
	if err := httpio.Ended(ctx, "get", "a"); !errors.Is(err, context.Canceled) || backend.Retryable(err) {
		t.Error(err)
	}
}

func TestAnUploadTellsOfItsSource(t *testing.T) {
	_, w := httpio.NewWatch(t.Context(), time.Minute)
	defer w.Stop()
	u := w.Upload(backend.Section(strings.NewReader("short"), 0, 100))
	if _, err := io.ReadAll(u); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(u.End(), io.ErrUnexpectedEOF) {
		t.Errorf("%v, %v", err, u.End())
	}
	u = w.Upload(backend.Bytes([]byte("again")))
	for range 2 {
		if got, err := io.ReadAll(u); err != nil || string(got) != "again" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := u.Seek(0, io.SeekStart); err != nil {
			t.Error(err)
		}
	}
	if err := u.End(); err != nil {
		t.Error(err)
	}
	if _, err := u.Read(make([]byte, 1)); err == nil {
		t.Error("it is read when the request is over")
	}
}

func TestNoSecretOfAnAddressIsTold(t *testing.T) {
	err := httpio.Unanswered("get", "a", &url.Error{Op: "Get", URL: "https://host/c/a?sig=hush", Err: io.ErrUnexpectedEOF})
	if !errors.Is(err, backend.ErrTransient) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "hush") {
		t.Error(err)
	}
}

func TestABodyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ctx, w := httpio.NewWatch(ctx, time.Minute)
	defer w.Stop()
	cancel()
	b := &httpio.Body{Watch: w, Reader: strings.NewReader("it has all come"), Left: 15, Fail: func(error) error { return httpio.Ended(ctx, "get", "a") }}
	if _, err := io.ReadAll(b); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAStatusIsOneSentinel(t *testing.T) {
	for status, want := range map[int]error{
		304: backend.ErrPrecondition, 401: backend.ErrCredentials, 403: backend.ErrPermission, 404: backend.ErrNotExist, 405: backend.ErrUnsupported,
		408: backend.ErrTransient, 410: backend.ErrNotExist, 412: backend.ErrPrecondition, 413: backend.ErrTooLarge, 414: backend.ErrBadKey,
		429: backend.ErrThrottled, 431: backend.ErrTooLarge, 500: backend.ErrTransient, 501: backend.ErrUnsupported, 502: backend.ErrTransient,
		503: backend.ErrThrottled, 504: backend.ErrTransient, 507: backend.ErrNoSpace, 302: backend.ErrIO, 400: backend.ErrIO, 409: backend.ErrIO,
	} {
		if got := httpio.Kind(status); got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}
