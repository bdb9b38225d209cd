package httpio

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Link is how a provider reaches its store. A provider embeds it, and has the
// Close of a Backend by that.
type Link struct {
	Transport http.RoundTripper

	own     *http.Transport // nil where it is shared
	timeout time.Duration
}

// NewLink returns a link that shares a transport, or has one of its own where
// that is nil. timeout is how long a request may make no progress, bodies
// included, before it fails with ErrTransient; 0 is one minute.
func NewLink(transport http.RoundTripper, timeout time.Duration) Link {
	if timeout <= 0 {
		timeout = time.Minute
	}
	l := Link{Transport: transport, timeout: timeout}
	if transport == nil {
		l.own = NewTransport()
		l.Transport = l.own
	}
	return l
}

// Close ends the connections that are not shared.
func (l *Link) Close() error {
	if l.own != nil {
		l.own.CloseIdleConnections()
	}
	return nil
}

// Watch returns the context of a request, and what watches it; to be stopped
// when the request is over.
func (l *Link) Watch(ctx context.Context) (context.Context, *Watch) {
	return NewWatch(ctx, l.timeout)
}

// WatchLong is for requests whose answer waits for the store to move data.
func (l *Link) WatchLong(ctx context.Context) (context.Context, *Watch) {
	return NewWatch(ctx, 10*l.timeout)
}

// HTTPClient is for providers that send requests of their own. It follows no
// redirection: a signature, or a key, is for one host only.
func (l *Link) HTTPClient() *http.Client {
	return &http.Client{
		Transport:     l.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Endpoint returns the address of a server as an option gives it, where
// "https://" may be left out, without a slash at its end.
func Endpoint(option string) (*url.URL, error) {
	if !strings.Contains(option, "://") {
		option = "https://" + option
	}
	u, err := url.Parse(option)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the endpoint must be http://host:port or https://host:port")
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	return u, nil
}
