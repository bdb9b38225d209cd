package all_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/fakegcs"
	"github.com/keifs/keifs/test/versitygw"
)

// roundTrip puts an object and reads it back.
func roundTrip(t *testing.T, b backend.Backend) {
	t.Helper()
	if _, err := b.Put(t.Context(), "main/a", backend.Bytes([]byte("content")), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	data, _, err := backend.ReadAll(t.Context(), b, "main/a", 100)
	if err != nil || string(data) != "content" {
		t.Errorf("read back %q, %v", data, err)
	}
}

func TestEachSchemeOpensItsStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "100%?# of it") // nothing is decoded
	for _, c := range []struct{ url, name, host string }{
		{"mem:", "mem:", "mem"},
		{"mem:name", "mem:name", "mem"},
		{"file://" + dir, "file://" + dir, "file"},
		{dir, "file://" + dir, "file"},
	} {
		opened, err := all.Open(t.Context(), c.url, all.Options{File: file.Options{Create: true}})
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if name := opened.Backend.Name(); name != c.name || opened.Host != c.host {
			t.Errorf("%s: name %q, host %q; want %q, %q", c.url, name, opened.Host, c.name, c.host)
		}
		roundTrip(t, opened.Backend)
		if err := opened.Backend.Close(); err != nil {
			t.Errorf("%s: %v", c.url, err)
		}
	}
}

func TestAWrongURLGivesOneLineWithTheSchemes(t *testing.T) {
	for _, url := range []string{
		"", "bucket", "relative/path", "s4://bucket", "https://host/bucket", "S3://bucket", "file:relative", "file://relative", "file://",
		"gs:bucket", "gs://", "gs:///prefix", "gs://bucket?endpoint=x", "s3:bucket", "s3://", "s3:///prefix", "s3://bucket?endpoint=x", "s3://bucket/a#b",
	} {
		_, err := all.Open(t.Context(), url, all.Options{})
		if !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%q: %v", url, err)
			continue
		}
		if line := err.Error(); strings.Contains(line, "\n") || !strings.Contains(line, all.Schemes) || !strings.Contains(line, url) {
			t.Errorf("%q: %s", url, line)
		}
	}
}

func TestAMissingFolderIsTheProvidersError(t *testing.T) {
	_, err := all.Open(t.Context(), "file://"+t.TempDir()+"/none", all.Options{})
	if !errors.Is(err, backend.ErrNoBucket) {
		t.Error(err)
	}
}

func TestAnS3URLOpensItsPrefixOfTheBucket(t *testing.T) {
	server := versitygw.Shared(t)
	bucket := server.NewBucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	for url, key := range map[string]string{
		"s3://" + bucket:                   "main/a",
		"s3://" + bucket + "/":             "main/a",
		"s3://" + bucket + "/some/pre fix": "some/pre fix/main/a",
		"s3://" + bucket + "/100%25/":      "100%25/main/a",
	} {
		opened, err := all.Open(t.Context(), url, all.Options{S3: s3.Options{Endpoint: server.Endpoint, Region: server.Region}})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if want := strings.TrimPrefix(server.Endpoint, "http://"); opened.Host != want {
			t.Errorf("%s: host %q, want %q", url, opened.Host, want)
		}
		roundTrip(t, opened.Backend)
		if data := server.Get(t, bucket, key); string(data) != "content" {
			t.Errorf("%s: the bucket has %q at %s", url, data, key)
		}
		if err := opened.Backend.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		server.Delete(t, bucket, key)
	}
}

func TestAGoogleURLOpensItsPrefixOfTheBucket(t *testing.T) {
	server := fakegcs.Shared(t)
	bucket := server.NewBucket(t)
	t.Setenv("STORAGE_EMULATOR_HOST", server.Endpoint)
	for url, key := range map[string]string{
		"gs://" + bucket:                   "main/a",
		"gs://" + bucket + "/100%25/pre x": "100%25/pre x/main/a",
	} {
		opened, err := all.Open(t.Context(), url, all.Options{})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if want := strings.TrimPrefix(server.Endpoint, "http://"); opened.Host != want {
			t.Errorf("%s: host %q, want %q", url, opened.Host, want)
		}
		roundTrip(t, opened.Backend)
		if data := server.Get(t, bucket, key); string(data) != "content" {
			t.Errorf("%s: the bucket has %q at %s", url, data, key)
		}
		if err := opened.Backend.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}
