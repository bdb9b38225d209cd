package gcs

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cloud.google.com/go/auth"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// answer is the store's refusal in its own words.
type answer struct {
	status  int
	reason  string // "rateLimitExceeded", "NoSuchKey"; empty where it gave none
	message string
}

func (a *answer) Error() string {
	if a.reason == "" {
		return fmt.Sprintf("%s (HTTP %d)", a.message, a.status)
	}
	return fmt.Sprintf("%s: %s (HTTP %d)", a.reason, a.message, a.status)
}

// fail makes an error of the package backend of what the client returned for
// a request with that context. It returns nil for nil.
func (b *bucket) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	if ended := httpio.Ended(ctx, op, key); ended != nil {
		return ended
	}
	// A token that was refused comes in the place of an answer.
	if status, refusal := tokenRefused(err); refusal != nil {
		kind := backend.ErrCredentials
		if status >= 500 || status == http.StatusTooManyRequests {
			kind = backend.ErrTransient
		}
		return backend.Fail(op, key, kind, firstLine(refusal))
	}
	if a := answerOf(err); a != nil {
		kind := a.kind()
		if op == "open" && kind == backend.ErrNotExist {
			kind = backend.ErrNoBucket // it is all that was asked for
		}
		return backend.Fail(op, key, kind, a)
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return httpio.Unanswered(op, key, sent)
	}
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, field := errors.AsType[*json.UnmarshalTypeError](err)
	if syntax || field || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return backend.Fail(op, key, backend.ErrTransient, fmt.Errorf("not an answer of the store: %v", err))
	}
	return backend.Fail(op, key, backend.ErrIO, httpio.Words(err))
}

// tokenRefused is the HTTP status and the words of those who give out tokens;
// nil where it is not them who answered. Google's client has two ways to ask.
func tokenRefused(err error) (status int, refusal error) {
	var resp *http.Response
	if e, ok := errors.AsType[*auth.Error](err); ok {
		resp, refusal = e.Response, e
	} else if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		resp, refusal = e.Response, e
	}
	if resp != nil {
		status = resp.StatusCode
	}
	return status, refusal
}

// answerOf is what the store answered; nil where it did not.
func answerOf(err error) *answer {
	e, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return nil
	}
	a := &answer{status: e.Code, message: e.Message}
	if len(e.Errors) > 0 {
		a.reason = e.Errors[0].Reason
	}
	// The answers to reads are XML.
	var doc struct{ Code, Message, Details string }
	if a.message == "" && xml.Unmarshal([]byte(e.Body), &doc) == nil {
		a.reason, a.message = doc.Code, doc.Message
	}
	if a.message == "" {
		a.message = http.StatusText(a.status)
	}
	a.message, _, _ = strings.Cut(strings.TrimSpace(a.message), "\n")
	return a
}

// kind is the sentinel of an answer: by its reason, else by its status.
func (a *answer) kind() error {
	switch a.reason {
	case "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded", "SlowDown":
		return backend.ErrThrottled
	case "NoSuchBucket":
		return backend.ErrNoBucket
	case "keyTooLong", "KeyTooLong", "invalidName", "InvalidObjectName":
		return backend.ErrBadKey
	case "uploadTooLarge", "EntityTooLarge", "metadataTooLarge", "MetadataTooLarge":
		return backend.ErrTooLarge
	case "authError", "ExpiredToken", "InvalidSecurity", "AuthenticationRequired":
		return backend.ErrCredentials
	}
	switch {
	case a.status == http.StatusNotFound && strings.Contains(a.message, "bucket does not exist"):
		return backend.ErrNoBucket
	// A change that met another one, and an upload that has to begin anew.
	case a.status == http.StatusConflict, a.status == http.StatusGone:
		return backend.ErrTransient
	case a.status == http.StatusBadRequest:
		return backend.ErrInvalid
	}
	return httpio.Kind(a.status)
}
