#!/bin/sh
# Used while the image is built: install one lock file into /opt/venv, without what no program reads.
set -eu
/opt/tools/bin/pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-compile --no-deps \
    --require-hashes --only-binary :all: --requirement "$1"
# Packages' tests of themselves, archives to link against, and torch's own test programs.
find /opt/venv/lib -depth -type d '(' -name tests -o -name test ')' -exec rm -rf {} +
find /opt/venv/lib '(' -name '*.a' -o -path '*/torch/bin/*' ! -name torch_shm_manager -type f ')' -delete
# Parts that nothing here calls: Arrow's network protocols, headers and doubled names, a second build of zstandard for
# other Pythons, TensorBoard's quick reader, without which it reads by itself, torchao's own kernels, none of which is
# for training in float8, and what Amazon sells besides storage.
cd /opt/venv/lib/python3*/site-packages
rm -rf pyarrow/libarrow_flight* pyarrow/libarrow_python_flight* pyarrow/_flight* pyarrow/libarrow_python*.so \
    pyarrow/libarrow_python*.so.*.*.* pyarrow/include zstandard/_cffi* tensorboard_data_server/bin torchao/_C*.so
find botocore/data boto3/data -mindepth 1 -maxdepth 1 -type d ! -name 's3' ! -name 'sso*' ! -name 'sts' \
    -exec rm -rf {} + 2> /dev/null || true
# Compiled now, since a run cannot write here; and trusted as they are, since layers do not keep times to the second.
# Some packages carry files that are templates rather than Python: those fail to compile, and nothing imports them.
/opt/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true
