package arch

// Keifs returns the rules of this project. backend/ is at the bottom and
// cmd/keifs on top; fs and cache are siblings that never see each other:
//
//	     cmd/keifs
//	fs     cache     backend/all
//	  store         s3  gcs  azure  bunny  file  mem
//	       backend             retry  sched  fault
func Keifs() Rules {
	const (
		fuse  = "github.com/hanwen/go-fuse/v2/..."
		az    = "github.com/Azure/azure-sdk-for-go/sdk/..."
		aws   = "github.com/aws/..."
		parq  = "github.com/parquet-go/..."
		goog  = "google.golang.org/api/..."
		oauth = "golang.org/x/oauth2"
		gauth = "cloud.google.com/go/auth"
		lru   = "github.com/hashicorp/golang-lru/v2/..."
		unix  = "golang.org/x/sys/unix"
		group = "golang.org/x/sync/..."
		bolt  = "go.etcd.io/bbolt"
		cobra = "github.com/spf13/..."
		toml  = "github.com/BurntSushi/toml"
	)
	return Rules{
		Module: "github.com/keifs/keifs",
		Imports: map[string][]string{
			"backend":             nil,
			"backend/sched":       {"backend"},
			"backend/retry":       {"backend"},
			"backend/fault":       {"backend"},
			"backend/backendtest": {"backend"},
			"backend/mem":         {"backend"},
			"backend/file":        {"backend", unix},
			"backend/httpio":      {"backend"},
			"backend/s3":          {"backend", "backend/httpio", aws},
			"backend/gcs":         {"backend", "backend/httpio", goog, gauth, oauth},
			"backend/azure":       {"backend", "backend/httpio", az},
			"backend/bunny":       {"backend", "backend/httpio"},
			"backend/all":         {"backend", "backend/mem", "backend/file", "backend/s3", "backend/gcs", "backend/bunny", "backend/azure"},

			"store":           {"backend", "store/overlay"},
			"store/commit":    {"backend", lru, parq},
			"store/overlay":   {"backend", "store/commit", "store/refs"},
			"store/refs":      {"backend"},
			"store/history":   {"backend", "store", "store/commit", "store/overlay", "store/refs"},
			"store/storetest": {"backend", "backend/fault", "backend/file", "backend/mem", "store", "store/overlay"},

			"cache":         {"backend", "cache/journal", "cache/shelf", "store", lru, group, unix},
			"cache/journal": {unix},
			"cache/shelf":   {bolt},

			"fs": {"backend", "store", fuse, unix},

			"cmd/keifs": {
				"backend", "backend/all", "backend/file", "backend/s3", "backend/gcs", "backend/bunny", "backend/azure", "backend/httpio", "backend/retry", "backend/sched",
				"store", "store/commit", "store/history", "store/refs", "cache", "fs", cobra, toml, unix, group,
			},

			// What serves only tests may see more, and nobody above sees it.
			"test/arch":      nil,
			"test/need":      nil,
			"test/server":    {aws},
			"test/versitygw": {"test/server"},
			"test/fakegcs":   {"test/server"},
			"test/minio":     {"test/server"},
			"test/bench":     {"backend", "backend/fault", "backend/mem", "backend/s3", "store", "store/commit", "store/history", "store/refs", "test/server", "test/versitygw", aws, unix},
			"test/bunnystub": nil,
			"test/azurite":   {"test/need", "test/server", az},
			"test/e2e":       {"backend", "backend/s3", "test/azurite", "test/bunnystub", "test/fakegcs", "test/minio", "test/need", "test/versitygw", unix},
		},
		Std: map[string]string{
			"log":       "a *slog.Logger is handed in",
			"testing":   "only tests test",
			"unsafe":    "nothing here needs it",
			"math/rand": "math/rand/v2 is the one to use",
			"io/ioutil": "os and io have it",
			"expvar":    "numbers are snapshots, rendered by the command",
		},
		TopFolders: []string{"backend", "cache", "cmd", "fs", "store", "test"},
		MaxLines:   500,
		BadNames:   []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "base", "types", "lib"},
		// fs/errno.go makes errno values; the others work on a local disk, or
		// with mounts and processes, and understand those they get.
		Errno:       []string{"fs/errno.go", "backend/file/", "cache/", "cmd/keifs/"},
		Pauses:      []string{"test/server/server.go", "test/bench/", "backend/s3/errors_test.go"},
		TestFolders: []string{"test/", "backend/backendtest/", "store/storetest/"},
	}
}
