// Package minio runs MinIO for tests: a second real S3 server, which deviates
// from Amazon in other places than versitygw does.
package minio

import (
	"path/filepath"
	"testing"

	"github.com/keifs/keifs/test/server"
)

// The last source that can be had as a Go module.
var program = server.Program{
	Name: "minio", Package: "github.com/minio/minio", Version: "v0.0.0-20260212201848-7aac2a2c5b7c", Env: "KEIFS_TEST_MINIO",
}

var shared server.Shared[*server.S3]

// Shared returns the one server of this test binary, and starts it for the
// first caller. It ends with the binary, however that ends.
func Shared(t testing.TB) *server.S3 {
	t.Helper()
	return shared.Get(t, start)
}

func start(t testing.TB) *server.S3 {
	t.Helper()
	p := server.Start(t, program, func(root string) (server.Command, error) {
		return server.Command{
			Args: []string{"server", "--address", "127.0.0.1:0", "--config-dir", filepath.Join(root, "config"), filepath.Join(root, "data")},
			Env: []string{
				"MINIO_ROOT_USER=" + server.S3AccessKey, "MINIO_ROOT_PASSWORD=" + server.S3SecretKey, "MINIO_REGION=" + server.S3Region,
				"MINIO_BROWSER=off", "MINIO_UPDATE=off", "HOME=" + root,
			},
		}, nil
	})
	p.WaitFor(t, "/minio/health/ready") // it listens before it knows its disks
	return server.NewS3(p)
}
