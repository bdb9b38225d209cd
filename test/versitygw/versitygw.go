// Package versitygw runs the Versity S3 Gateway for tests: a real S3 server on
// a local directory, in a process of its own.
//
// [Shared] is one server for a whole test binary, [Start] one for a single
// test. [Server.NewBucket] gives each test a bucket; Put, Get, Head, List and
// Delete reach its objects past keifs.
package versitygw

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keifs/keifs/test/server"
)

var program = server.Program{
	Name: "versitygw", Package: "github.com/versity/versitygw/cmd/versitygw", Version: "v1.8.0", Env: "KEIFS_TEST_VERSITYGW",
}

// Server is a running server.
type Server struct {
	*server.S3
	Dir string // the buckets: what lies in them are the objects
}

var shared server.Shared[*Server]

// Shared returns the one server of this test binary, and starts it for the
// first caller. It ends with the binary, however that ends.
func Shared(t testing.TB) *Server {
	t.Helper()
	return shared.Get(t, start)
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := start(t)
	t.Cleanup(s.Stop)
	s.LogOnFailure(t)
	return s
}

func start(t testing.TB) *Server {
	t.Helper()
	p := server.Start(t, program, func(root string) (server.Command, error) {
		dir, versions := filepath.Join(root, "data"), filepath.Join(root, "versions")
		for _, d := range []string{dir, versions} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return server.Command{}, err
			}
		}
		if err := syscall.Setxattr(dir, "user.keifs-test", []byte("1"), 0); err != nil {
			return server.Command{}, fmt.Errorf("the S3 server needs extended attributes, which %s does not have (%v): set TMPDIR to a directory on ext4, xfs or btrfs", os.TempDir(), err)
		}
		return server.Command{
			// Without O_TMPFILE: with it, an overwrite shows a second name for a moment.
			Args: []string{"--port", "127.0.0.1:0", "--keep-alive", "--region", server.S3Region, "posix", "--disableotmp", "--versioning-dir", versions, dir},
			Env:  []string{"ROOT_ACCESS_KEY=" + server.S3AccessKey, "ROOT_SECRET_KEY=" + server.S3SecretKey},
		}, nil
	})
	return &Server{S3: server.NewS3(p), Dir: filepath.Join(p.Root, "data")}
}

// NewBucket makes an empty bucket that is removed at the end of the test, and
// returns its name.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	name := s.MakeBucket(t)
	// By the file system: the server refuses to remove one that is not empty.
	t.Cleanup(func() {
		for _, dir := range []string{s.Dir, filepath.Join(s.Root, "versions")} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	})
	return name
}
