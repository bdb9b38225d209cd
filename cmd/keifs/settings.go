package main

import (
	"time"

	"github.com/spf13/pflag"
)

// settings are the options that flags, -o, the environment and the
// configuration file have in common. The flag set is the only list of them:
// names, kinds, defaults and help come from it everywhere.
type settings struct {
	flags  *pflag.FlagSet
	shared *shared

	config string

	endpoint, region, profile, account  string
	keyFile                             string
	pathStyle, anonymous, requesterPays bool
	storageClass, sseKMSKeyID           string
	sse                                 choice
	sseCustomerKeyFile                  string

	readOnly, allowOther bool
	uid, gid             ident
	umask                octal
	conflict             choice

	cache       choice
	cacheDir    string
	cacheSize   byteSize
	memory      byteSize
	metadataTTL lifetime
	attrs       choice
	writeBack   bool
	journalSync bool
	strictExcl  bool
	syncDeletes bool

	logLevel   choice
	logFile    string
	foreground bool
	debugFuse  bool
}

func newSettings(sh *shared) *settings {
	s := &settings{
		shared:    sh,
		umask:     0o022,
		sse:       choice{words: []string{"AES256", "aws:kms", "aws:kms:dsse"}},
		conflict:  oneOf("keep-both", "fail", "overwrite"),
		cache:     oneOf("on", "off"),
		cacheSize: 10 << 30, metadataTTL: lifetime(time.Second),
		attrs:    oneOf("auto", "list", "head"),
		memory:   512 << 20,
		logLevel: oneOf("info", "debug", "warn", "error"),
	}
	f := pflag.NewFlagSet("keifs", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&s.config, "config", "", "configuration `file` (default $XDG_CONFIG_HOME/keifs/config.toml)")

	f.StringVar(&s.endpoint, "endpoint", "", "`URL` of the endpoint, where it is not that of AWS, Google, Azure or Bunny itself")
	f.StringVar(&s.region, "region", "", "`region` of the bucket (default: that of the AWS configuration, or BUNNY_REGION)")
	f.StringVar(&s.profile, "profile", "", "`profile` of the AWS configuration")
	f.StringVar(&s.account, "account", "", "`name` of the Azure storage account (default: AZURE_STORAGE_ACCOUNT)")
	f.StringVar(&s.keyFile, "key-file", "", "`file` with the key to the store: a service account's JSON for gs://, an account's key for az://, a zone's password for bunny://")
	f.BoolVar(&s.pathStyle, "path-style", false, "address buckets as endpoint/bucket (default with --endpoint)")
	f.BoolVar(&s.anonymous, "anonymous", false, "sign nothing: for public buckets")
	f.BoolVar(&s.requesterPays, "requester-pays", false, "pay for the requests to somebody else's bucket")
	f.StringVar(&s.storageClass, "storage-class", "", "storage `class` of what is written (default: the bucket's)")
	f.Var(&s.sse, "sse", "server-side encryption `algorithm` of what is written: AES256, aws:kms or aws:kms:dsse")
	f.StringVar(&s.sseKMSKeyID, "sse-kms-key-id", "", "`key` id for --sse aws:kms")
	f.StringVar(&s.sseCustomerKeyFile, "sse-customer-key-file", "", "`file` with the key of 32 bytes, plain or in base64, that the store encrypts with and forgets (SSE-C)")

	f.BoolVar(&s.readOnly, "read-only", false, "change nothing (-o ro)")
	f.BoolVar(&s.allowOther, "allow-other", false, "let other users use the mount")
	f.Var(&s.uid, "uid", "owner of files that have none of their own (default: who mounts)")
	f.Var(&s.gid, "gid", "group of files that have none of their own (default: of who mounts)")
	f.Var(&s.umask, "umask", "permissions that files without a mode of their own lack")
	f.Var(&s.conflict, "conflict", "`policy` for a change to a file that somebody else changed meanwhile: keep-both, fail or overwrite")

	f.Var(&s.cache, "cache", "the local cache, `on` or off; without it every call asks the store")
	f.StringVar(&s.cacheDir, "cache-dir", "", "`directory` of the cache (default: one a mount, below $XDG_CACHE_HOME/keifs)")
	f.Var(&s.cacheSize, "cache-size", "bytes of content the cache keeps on disk, of which it leaves a twentieth, or 1 GiB, free")
	f.Var(&s.memory, "memory", "bytes of memory the daemon keeps to: a quarter of it for content, the rest for all else")
	f.Var(&s.metadataTTL, "metadata-ttl", "how long names and attributes are believed; 0s asks every time, unlimited never again")
	f.Var(&s.attrs, "attrs", "`way` to the attributes of files that are listed: auto asks for those that keifs may have stored, list for none, head for all")
	f.BoolVar(&s.syncDeletes, "sync-deletes", false, "a removal returns when the bucket has done it, not when the local disk has it")

	f.BoolVar(&s.writeBack, "write-back", false, "close returns when the file is safe on the local disk, and the upload follows; fsync still waits for the bucket")
	f.BoolVar(&s.journalSync, "journal-sync", false, "with --write-back: sync the local disk before each close returns, not once a second")
	f.BoolVar(&s.strictExcl, "strict-excl", false, "with --write-back: let O_EXCL exclude other machines from the start, by a request for each such file")

	f.Var(&s.logLevel, "log-level", "the least `level` that is logged: debug, info, warn or error")
	f.StringVar(&s.logFile, "log-file", "", "log `file` (default: one a mount, below $XDG_STATE_HOME/keifs; stderr with --foreground)")
	f.BoolVar(&s.foreground, "foreground", false, "do not return before the unmount")
	f.BoolVar(&s.debugFuse, "debug-fuse", false, "log every request of the kernel")
	s.flags = f
	return s
}

// storeFlags are the flags that say how a store is reached, for the commands
// that mount nothing.
func (s *settings) storeFlags() *pflag.FlagSet {
	some := pflag.NewFlagSet("store", pflag.ContinueOnError)
	some.SortFlags = false
	for _, name := range []string{
		"config", "endpoint", "region", "profile", "account", "key-file", "path-style", "anonymous", "requester-pays",
		"storage-class", "sse", "sse-kms-key-id", "sse-customer-key-file",
	} {
		some.AddFlag(s.flags.Lookup(name))
	}
	return some
}

// The permissions of what has none of its own.

func (s *settings) fileMode() uint32 { return 0o666 &^ uint32(s.umask) }
func (s *settings) dirMode() uint32  { return 0o777 &^ uint32(s.umask) }
