// Package azurite runs Azurite for tests: Microsoft's emulator of Azure Blob
// Storage, in a process of its own. It comes from npm, and needs Node.js.
package azurite

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/keifs/keifs/test/need"
	"github.com/keifs/keifs/test/server"
)

var program = server.Program{
	Name: "azurite-blob", Package: "azurite", Version: "3.37.0", NPM: true, Env: "KEIFS_TEST_AZURITE",
}

// Account and Key are those that every Azurite has.
const (
	Account = "devstoreaccount1"
	Key     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Server is a running server.
type Server struct {
	*server.Process
	Endpoint string // http://127.0.0.1:PORT/devstoreaccount1
}

var shared server.Shared[*Server]

// Shared returns the one server of this test binary, and starts it for the
// first caller. It ends with the binary, however that ends.
func Shared(t testing.TB) *Server {
	t.Helper()
	return shared.Get(t, start)
}

func start(t testing.TB) *Server {
	t.Helper()
	need.Tool(t, "node", "nodejs")
	need.Tool(t, "npm", "npm")
	p := server.Start(t, program, func(root string) (server.Command, error) {
		return server.Command{Args: []string{
			"--blobHost", "127.0.0.1", "--blobPort", "0", "--location", filepath.Join(root, "data"),
			"--silent", "--skipApiVersionCheck", "--disableTelemetry",
		}}, nil
	})
	return &Server{Process: p, Endpoint: "http://" + p.Addr + "/" + Account}
}

// NewContainer makes an empty container of a new name. It ends with the server.
func (s *Server) NewContainer(t testing.TB) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text()[:12])
	if _, err := s.Client(t, name).Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return name
}

// Client returns a plain client of a container.
func (s *Server) Client(t testing.TB, name string) *container.Client {
	t.Helper()
	key, err := container.NewSharedKeyCredential(Account, Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(s.Endpoint+"/"+name, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Put stores an object as another tool would.
func (s *Server) Put(t testing.TB, name, key string, data []byte, metadata map[string]*string) {
	t.Helper()
	_, err := s.Client(t, name).NewBlockBlobClient(key).UploadBuffer(t.Context(), data, &blockblob.UploadBufferOptions{Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
}

// Get returns the content of an object that must be there, and its metadata.
func (s *Server) Get(t testing.TB, name, key string) ([]byte, map[string]*string) {
	t.Helper()
	out, err := s.Client(t, name).NewBlobClient(key).DownloadStream(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(out.Body)
	if err = errors.Join(err, out.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return data, out.Metadata
}
