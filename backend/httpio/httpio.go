// Package httpio is what the providers that speak HTTP have in common: the
// connection pool, a clock that ends a request which makes no progress, the
// bodies in both directions, and what a request without an answer means.
package httpio

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/keifs/keifs/backend"
)

// DefaultType is the content type of an object whose writer names none.
const DefaultType = "application/octet-stream"

// NewTransport returns a transport whose connection pool is large enough for
// many requests at once, to one host or to several.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns = 0
	t.MaxIdleConnsPerHost = 256
	t.DisableCompression = true // a body is what is stored
	// Many connections carry more than one with many streams.
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// Ended is the error of a request whose context has ended, by its caller or by
// its [Watch]; nil where the context has not.
func Ended(ctx context.Context, op, key string) error {
	if ctx.Err() == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause == errStalled {
		return backend.Fail(op, key, backend.ErrTransient, cause)
	}
	return fmt.Errorf("%s %s: %w", op, key, ctx.Err())
}

// Unanswered makes an error of what http.Client returned in place of an
// answer: ErrUnreachable or ErrTransient.
func Unanswered(op, key string, sent *url.Error) error {
	kind := backend.ErrTransient
	if unreachable(sent.Err) {
		kind = backend.ErrUnreachable
	}
	// The host is enough: the whole address of the request helps nobody.
	if u, err := url.Parse(sent.URL); err == nil {
		return backend.Fail(op, key, kind, fmt.Errorf("%s://%s: %v", u.Scheme, u.Host, sent.Err))
	}
	return backend.Fail(op, key, kind, Words(sent.Err))
}

// Words is what an error says, without being it: that a connection timed out
// must not read as if the caller's context had, nor a cut answer as a short source.
func Words(err error) error { return errors.New(err.Error()) }

// unreachable says whether there was no connection at all.
func unreachable(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	return errors.Is(err, http.ErrSchemeMismatch) || is[*net.DNSError](err) || is[tls.RecordHeaderError](err) ||
		is[tls.AlertError](err) || is[*tls.CertificateVerificationError](err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
