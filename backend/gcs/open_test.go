package gcs_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/test/fakegcs"
)

// kind checks that an error is of one kind, and returns it.
func kind(t *testing.T, err error) (found error) {
	t.Helper()
	for _, k := range backend.Sentinels() {
		if !errors.Is(err, k) {
			continue
		}
		if found != nil {
			t.Errorf("%v is %q as well as %q", err, found, k)
		}
		found = k
	}
	return found
}

func failsToOpen(t *testing.T, opts gcs.Options, want error) {
	t.Helper()
	b, err := gcs.Open(t.Context(), opts)
	if err == nil {
		b.Close()
		t.Errorf("opened %+v", opts)
		return
	}
	if got := kind(t, err); got != want || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want %q in one line", err, want)
	}
}

func TestOpenFailsAtOnce(t *testing.T) {
	isolate(t)
	srv := fakegcs.Shared(t)
	failsToOpen(t, gcs.Options{Bucket: "no-such-bucket", Endpoint: srv.Endpoint, Anonymous: true}, backend.ErrNoBucket)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	l.Close()
	failsToOpen(t, gcs.Options{Bucket: "bucket", Endpoint: closed, Anonymous: true}, backend.ErrUnreachable)
	for _, opts := range []gcs.Options{
		{}, {Bucket: "a/b"}, {Bucket: "bucket", Prefix: strings.Repeat("x/", 600)}, {Bucket: "bucket", Endpoint: "ftp://x"},
		{Bucket: "bucket", Endpoint: "http://user:pw@x"}, {Bucket: "bucket", Endpoint: "http://x/storage/v1"}, {Bucket: "bucket", Anonymous: true, Key: []byte("{}")},
	} {
		failsToOpen(t, opts, backend.ErrInvalid)
	}
	failsToOpen(t, gcs.Options{Bucket: "bucket", Key: []byte("no JSON")}, backend.ErrCredentials)
	failsToOpen(t, gcs.Options{Bucket: "bucket", Key: []byte(`{"type":"service_account"}`)}, backend.ErrCredentials)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
	failsToOpen(t, gcs.Options{Bucket: "bucket"}, backend.ErrCredentials)
}

func TestTheEmulatorOfTheEnvironmentIsAsked(t *testing.T) {
	isolate(t)
	srv := fakegcs.Shared(t)
	bucket := srv.NewBucket(t)
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(srv.Endpoint, "http://"))
	b := open(t, gcs.Options{Bucket: bucket, Prefix: "/some/prefix/"})
	defer b.Close()
	put(t, b, "a", "content")
	if got := string(srv.Get(t, bucket, "some/prefix/a")); got != "content" {
		t.Errorf("another tool reads %q", got)
	}
	if got, want := b.Name(), "gs://"+bucket+"/some/prefix?endpoint="+srv.Endpoint; got != want {
		t.Errorf("its name is %s, want %s", got, want)
	}
}

// account is the key of a service account whose tokens come from a server.
func account(t *testing.T, tokens http.HandlerFunc) []byte {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(tokens)
	t.Cleanup(srv.Close)
	key, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "keifs@example.test", "private_key_id": "1", "token_uri": srv.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAServiceAccountSignsIn(t *testing.T) {
	isolate(t)
	key := account(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"token-of-the-account","token_type":"Bearer","expires_in":3600}`)
	})
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, given := range [][]byte{key, nil} {
		if given == nil {
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
		}
		got := ""
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("Authorization")
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{}`)
		}))
		b := open(t, gcs.Options{Bucket: "bucket", Key: given, Endpoint: store.URL})
		if got != "Bearer token-of-the-account" {
			t.Errorf("the store was shown %q", got)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		store.Close()
	}
}

func TestARefusedAccountIsACaseOfCredentials(t *testing.T) {
	isolate(t)
	key := account(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"account not found"}`)
	})
	failsToOpen(t, gcs.Options{Bucket: "bucket", Key: key, Endpoint: "http://127.0.0.1:1"}, backend.ErrCredentials)
}

// TestAnswersBecomeErrors is the table of what the store says.
func TestAnswersBecomeErrors(t *testing.T) {
	isolate(t)
	said := func(status int, reason, message string) string {
		return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"errors":[{"reason":%q,"message":%[2]q}]}}`, status, message, reason)
	}
	for _, c := range []struct {
		status int
		body   string
		want   error
	}{
		{404, said(404, "notFound", "No such object: bucket/a"), backend.ErrNotExist},
		{404, said(404, "notFound", "The specified bucket does not exist."), backend.ErrNoBucket},
		{404, `<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>`, backend.ErrNotExist},
		{404, `<?xml version='1.0'?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist.</Message></Error>`, backend.ErrNoBucket},
		{412, said(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."), backend.ErrPrecondition},
		{401, said(401, "required", "Anonymous caller does not have access."), backend.ErrCredentials},
		{401, said(401, "authError", "Invalid Credentials"), backend.ErrCredentials},
		{403, said(403, "forbidden", "keifs@example.test does not have storage.objects.get access"), backend.ErrPermission},
		{403, said(403, "rateLimitExceeded", "too fast"), backend.ErrThrottled},
		{403, `<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message></Error>`, backend.ErrPermission},
		{409, said(409, "conflict", "The object was edited during the operation."), backend.ErrTransient},
		{410, said(410, "gone", ""), backend.ErrTransient},
		{429, said(429, "rateLimitExceeded", "The object bucket/a exceeded the rate limit for object mutation operations"), backend.ErrThrottled},
		{413, said(413, "uploadTooLarge", ""), backend.ErrTooLarge},
		{400, said(400, "invalid", "Bad Request"), backend.ErrInvalid},
		{400, said(400, "keyTooLong", "The name is too long"), backend.ErrBadKey},
		{408, "", backend.ErrTransient},
		{500, said(500, "backendError", "Backend Error"), backend.ErrTransient},
		{502, "<html>no answer of the store</html>", backend.ErrTransient},
		{503, said(503, "backendError", ""), backend.ErrThrottled},
		{200, "no JSON", backend.ErrTransient},
		{418, "", backend.ErrIO},
	} {
		rec := &recorder{answer: opensWith(func(r *http.Request) *http.Response { return reply(r, c.status, c.body) })}
		b := open(t, gcs.Options{Bucket: "bucket", Anonymous: true, Transport: rec})
		rec.since()
		_, err := b.Stat(t.Context(), "a")
		if got := kind(t, err); got != c.want {
			t.Errorf("%d %s: %v, want %q", c.status, c.body, err, c.want)
		}
		if sent := rec.since(); len(sent) != 1 {
			t.Errorf("%d: it is not one request: %q", c.status, sent)
		}
	}
}

func TestABatchTellsOfEachObject(t *testing.T) {
	isolate(t)
	answers := "--x\r\nContent-Type: application/http\r\nContent-ID: <response-keifs+1>\r\n\r\nHTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n\r\n" +
		"--x\r\nContent-Type: application/http\r\nContent-ID: <response-keifs+0>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n" +
		"--x\r\nContent-Type: application/http\r\nContent-ID: <response-keifs+2>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n\r\n"
	for _, whole := range []bool{true, false} {
		body := answers
		if whole {
			body += "--x--\r\n"
		}
		rec := &recorder{answer: opensWith(func(r *http.Request) *http.Response {
			return reply(r, 200, body, "Content-Type: multipart/mixed; boundary=x")
		})}
		b := open(t, gcs.Options{Bucket: "bucket", Anonymous: true, Transport: rec})
		batch, _ := backend.As[backend.BatchDeleter](b)
		errs, err := batch.DeleteBatch(t.Context(), []backend.Deletion{{Key: "a"}, {Key: "b", IfMatch: "5.1"}, {Key: "c"}})
		if !whole {
			if kind(t, err) != backend.ErrTransient || errs != nil {
				t.Errorf("an answer that was cut: %v, %v", errs, err)
			}
			continue
		}
		if err != nil || errs[0] != nil || kind(t, errs[1]) != backend.ErrPrecondition || errs[2] != nil {
			t.Errorf("%v, %v", errs, err)
		}
	}
}

func TestACancelledOpenIsTheCallers(t *testing.T) {
	isolate(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := gcs.Open(ctx, gcs.Options{Bucket: "bucket", Endpoint: "http://127.0.0.1:1", Anonymous: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
