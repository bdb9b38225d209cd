package s3_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/versitygw"
)

func credentials(t *testing.T, srv *versitygw.Server) {
	t.Helper()
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", srv.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", srv.SecretKey)
}

// isolate hides what this machine knows of AWS.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func open(t *testing.T, opts s3.Options) backend.Backend {
	t.Helper()
	b, err := s3.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConformance leaves out what this server is known not to do: it ignores a
// condition on the destination of a copy, reports success for a conditional
// delete of what is not there, and holds objects as files in directories.
func TestConformance(t *testing.T) {
	srv := versitygw.Shared(t)
	credentials(t, srv)
	opts := s3.Options{Bucket: srv.NewBucket(t), Prefix: "some/prefix with+odd%41 ü", Endpoint: srv.Endpoint}
	opts.Caps = func(c *backend.Caps) {
		c.CondCopy, c.CondDelete, c.CondBatch, c.ObjectPrefix = false, false, false, false
	}
	backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, opts) })
}
