# The native engine as WebAssembly, with SIMD and without: web/dist. Wants clang and wasm-ld.
WEB_SOURCES := $(wildcard native/src/*.c web/c/*.c) \
	$(addprefix native/run/,$(addsuffix .c,bundle generation learn prompt sampling stream text))
WEB_HEADERS := $(wildcard native/*/*.h native/src/kernels/*.h web/c/*.h web/c/include/*.h web/c/include/*/*.h)
WEB_FLAGS := --target=wasm32 -nostdlibinc -isystem web/c/include $(NATIVE_FLAGS) -mbulk-memory -mmutable-globals -msign-ext -mnontrapping-fptoint \
	-fno-builtin-calloc -DRL_PLAIN_ONLY -DRUN_NAME='"rillet.js"' -Wall -Wextra -Werror
# Only the kernels are fast; everything else is small.
WEB_SIZE = $(if $(filter %/kernels_plain.o,$@),$(WEB_KERNELS),-Oz)
build/web/simd/%: WEB_KERNELS = -O2 -fno-unroll-loops
build/web/plain/%: WEB_KERNELS = -Os -fno-unroll-loops
# libc.c is what the compiler would call in its place.
WEB_OWN = $(if $(filter %/libc.o,$@),-fno-builtin)
WEB_SCRIPTS := $(patsubst web/src/%,web/dist/%,$(wildcard web/src/*.js))

build/web/simd/%.o: %.c native/flags.txt web/build.mk $(WEB_HEADERS)
	@mkdir -p $(@D)
	@clang $(WEB_FLAGS) -msimd128 $(WEB_SIZE) $(WEB_OWN) -c $< -o $@

build/web/plain/%.o: %.c native/flags.txt web/build.mk $(WEB_HEADERS)
	@mkdir -p $(@D)
	@clang $(WEB_FLAGS) $(WEB_SIZE) $(WEB_OWN) -c $< -o $@

WEB_LINK = @wasm-ld --no-entry --export=__stack_pointer --stack-first -z stack-size=262144 --max-memory=1073741824 \
	--gc-sections --strip-all -O2 $^ -o $@

web/dist/rillet-simd.wasm: $(WEB_SOURCES:%.c=build/web/simd/%.o)
	@mkdir -p $(@D)
	$(WEB_LINK)

web/dist/rillet.wasm: $(WEB_SOURCES:%.c=build/web/plain/%.o)
	@mkdir -p $(@D)
	$(WEB_LINK)

# Without comments, indentation and semicolons, and with few spaces in lines without a text: the
# declarations hold what a caller reads.
web/dist/%.js: web/src/%.js web/build.mk
	@mkdir -p $(@D)
	@sed -E 's#/\*\* @type [^*]*\*/ ?##g; /^ *\/\*\*.*\*\/$$/d; /^ *\/\*\*$$/,/\*\/$$/d; /^ *\/\/ /d; s#; // .*#;#; s/^ +//; s/ (=|=>|===|!==|&&|\|\|) /\1/g; /["\x60]/!{s/ \{$$/{/; s/^(\} )?(if|for|else if|while|catch) \(/\1\2(/; s/ ([?:+<>]|[<>]=) /\1/g; s/, /,/g}; /^$$/d; s/;$$//' \
		$< > $@

web: web/dist/rillet.wasm web/dist/rillet-simd.wasm $(WEB_SCRIPTS) build/demo/sw.js

# The demo as one folder that any server can serve: the page of `rillet serve` with another engine.js,
# module and models.
WEB_PAGE := runtime/serve/page
WEB_MODELS := $(foreach name,shakespeare-nano shakespeare-nano-int8 shakespeare-micro-int8,\
	$(addprefix models/$(name)/,bundle.json generation_config.json tokenizer.json weights.safetensors))
build/demo/sw.js: $(wildcard $(WEB_PAGE)/* web/demo/*) web/dist/rillet.wasm web/dist/rillet-simd.wasm $(WEB_SCRIPTS) $(WEB_MODELS)
	@rm -rf build/demo
	@mkdir -p build/demo
	@cp -r $(WEB_PAGE)/. build/demo
	@cp -r web/demo/. build/demo
	@mkdir build/demo/rillet
	@cp $(filter web/dist/%,$^) build/demo/rillet
	@for file in $(WEB_MODELS); do mkdir -p build/demo/$${file%/*}; cp $$file build/demo/$$file; done
	@touch $@

# What checks, packs and tests it; the versions are in web/package-lock.json.
web/node_modules/.package-lock.json: web/package-lock.json
	npm ci --prefix web --ignore-scripts --no-audit --no-fund
	touch $@

web-packages: web/node_modules/.package-lock.json

web-types: web/dist/index.d.ts

web/dist/index.d.ts: $(wildcard web/src/*.js) web/tsconfig.json web/node_modules/.package-lock.json
	web/node_modules/.bin/tsc -p web
	touch $@

# The tests skip, and say why, where something that they want is absent.
web-test: .venv/ready web web-packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/runtime/test_web.py

# Times and sizes beside onnxruntime-web: docs/browser.md.
web-bench: web web-packages
	node web/bench/run.js
